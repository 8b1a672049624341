"""LeNet-5 on fashion_mnist."""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(dataset="fashion_mnist")
