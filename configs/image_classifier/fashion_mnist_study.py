"""An MLP of one hidden layer on Fashion-MNIST: six learning rates times three seeds, vmapped.

    python -m experiments.image_classifier fashion_mnist_study --data-dir ../shared/data/tfds

About 155 s on two busy cores. Expect validation to choose 0.01, with a test accuracy of 87.9 % [87.3, 88.4].
"""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(
        dataset="fashion_mnist", net="mlp", learning_rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), seeds=3, mode="vmap"
    )
