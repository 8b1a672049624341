"""Every data set with every kind of features that it has, without the image net and CLIP, and all nine methods.

    python -m experiments.autows grid --data-dir DIR_OF_TFDS_SETS

Its 1,310 cells take 50 minutes on two cores. Few-shot regression has the best mean rank of eight methods over 32
problems, 1.5 and 1.8, then label propagation with 3.5 and GOGGLES with 4.7; methods of labelling functions have 6.0 to
6.5 (docs/methods/autows.md). On raw MNIST few-shot regression has 76.1 % [75.0, 77.2], published 73.0, and label
propagation 71.3 % [69.9, 72.6], published 70.7.
"""

from experiments.autows import Config
from experiments.autows_data import DATASETS


def get_config() -> Config:
    return Config(datasets=DATASETS, features=("raw", "pca", "minilm", "minilm_classes"))
