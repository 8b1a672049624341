"""Loki on CIFAR-10 with WordNet's tree, from whitened principal components of the pixels.

    python -m experiments.loki cifar10 --data-dir DIR --hierarchy FILE

Only the test split is used, cut in 8,000 examples to train the probe and 2,000 to test it.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(dataset="cifar10", observed=(2, 3, 4, 6, 8, 10))
