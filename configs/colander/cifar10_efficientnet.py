"""CIFAR-10's test split with an MLP on the features of EfficientNet-Lite0.

    python -m experiments.colander cifar10_efficientnet --data-dir ../shared/data/tfds

With the net's 1,000 logits for features, four ways of training, eight confidence functions and a Colander with a
threshold for each class it took 14 minutes on two shared cores, four of them for the features, and coverage at epsilon
5 % was 15.9 % with cross-entropy and the softmax and 13.6 % with Colander, 37.6 % and 35.9 % with squentropy
(docs/methods/colander.md). With the 1,280 numbers before these and all confidence functions it is to be measured again.
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
