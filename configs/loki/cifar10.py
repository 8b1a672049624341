"""Loki on CIFAR-10 with WordNet's tree, from whitened principal components of the pixels.

    python -m experiments.loki cifar10 --data-dir DIR --hierarchy FILE

About 25 s on two cores. Only the test split is used, cut in 8,000 examples to train the probe and 2,000 to test it.
Expect E[d^2] 13.5 for the argmax and 7.1 for Loki with all classes observed, 18.4 and 12.0 with three. Inner nodes may
be predicted, so that the accuracy falls from 37 % to 1 %: a weak probe is better served by "animal" than by a guess.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(dataset="cifar10", observed=(2, 3, 4, 6, 8, 10))
