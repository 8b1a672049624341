"""Study on fashion_mnist."""

from experiments.image_classifier import Config


def get_config() -> Config:
    return Config(
        dataset="fashion_mnist", net="mlp", learning_rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), seeds=3, mode="vmap"
    )
