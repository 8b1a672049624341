"""LeNet-5 on Fashion-MNIST, five epochs.

    python -m experiments.image_classifier fashion_mnist --data-dir ../shared/data/tfds

As long as the preset mnist. No figure has been measured yet, and the paper has no such data set.
"""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(dataset="fashion_mnist")
