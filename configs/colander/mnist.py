"""MNIST with LeNet-5: disjoint roles and certified thresholds.

    python -m experiments.colander mnist --data-dir ../shared/data/tfds

It has not been run to its end yet. Published figures are those of mnist_paper.
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
