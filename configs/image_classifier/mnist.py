"""LeNet-5 on mnist."""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(dataset="mnist")
