"""An MLP of one hidden layer on MNIST: six learning rates times three seeds, vmapped.

    python -m experiments.image_classifier mnist_study --data-dir ../shared/data/tfds

About 160 s on two busy cores. Expect validation to choose 0.01, with a test accuracy of 98.0 % [97.8, 98.3].
"""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(dataset="mnist", net="mlp", learning_rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), seeds=3, mode="vmap")
