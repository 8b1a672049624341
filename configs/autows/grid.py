"""Every data set with every kind of features that it has, without the image net and CLIP, and all nine methods.

    python -m experiments.autows grid --data-dir DIR_OF_TFDS_SETS

Not run yet, so that neither its time nor its figures are known. The whole grid is meant to take less than an hour on
two quiet cores, which nobody has measured.
"""

from experiments.autows import Config
from experiments.autows_data import DATASETS


def get_config() -> Config:
    return Config(datasets=DATASETS, features=("raw", "pca", "minilm", "minilm_classes"))
