"""Fashion-MNIST with LeNet-5: disjoint roles and certified thresholds.

    python -m experiments.colander fashion_mnist --data-dir ../shared/data/tfds

It has not been run to its end yet. The papers have no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="fashion_mnist",
        split="train[:20000]",
        net="lenet5",
        shared=True,
        errors=(0.025, 0.05, 0.1),
        roles=(200, 500, 1000, 500),
        seed_points=300,
        batch_points=300,
        budget=900,
        learning_rate=0.03,
    )
