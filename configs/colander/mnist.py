"""MNIST with LeNet-5: disjoint roles and certified thresholds.

    python -m experiments.colander mnist --data-dir ../shared/data/tfds

It takes two and a half hours of one core. At epsilon 5 % coverage is 76.4 % with cross-entropy and the softmax and
74.7 % with Colander, 81.5 % and 80.5 % with squentropy; with none of five ways of training can the difference be told
from zero over five seeds (docs/methods/colander.md). Published figures are those of mnist_paper.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="mnist",
        split="train[:20000]",
        net="lenet5",
        shared=True,
        roles=(100, 300, 1000, 500),
        seed_points=200,
        batch_points=100,
        budget=500,
        learning_rate=0.03,
    )
