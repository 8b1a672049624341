"""CIFAR-10's test split with an MLP on the features of EfficientNet-Lite0.

    python -m experiments.colander cifar10_efficientnet --data-dir ../shared/data/tfds

It takes 25 minutes of one core, four of them for the features. At epsilon 5 % coverage is 26.4 % with cross-entropy and
the softmax and 23.9 % with Colander, 36.0 % and 27.9 % with squentropy; with none of five ways of training can the
difference be told from zero over five seeds (docs/methods/colander.md).
The papers have no figure for these features.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="cifar10",
        split="test",
        net="efficientnet",
        shared=True,
        roles=(200, 500, 1000, 500),
        seed_points=200,
        batch_points=100,
        budget=600,
        learning_rate=0.03,
    )
