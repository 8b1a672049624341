"""CIFAR-10's test split with an MLP on the features of EfficientNet-Lite0.

    python -m experiments.colander cifar10_efficientnet --data-dir ../shared/data/tfds

It has not been run to its end yet. The papers have no figure for these features.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="cifar10",
        split="test",
        net="efficientnet",
        objectives=("cross_entropy", "squentropy", "crl", "fmfp"),
        shared=True,
        roles=(200, 500, 1000, 500),
        seed_points=200,
        batch_points=100,
        budget=600,
        learning_rate=0.03,
    )
