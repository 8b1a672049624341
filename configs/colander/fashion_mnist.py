"""Fashion-MNIST with LeNet-5: disjoint roles and certified thresholds.

    python -m experiments.colander fashion_mnist --data-dir ../shared/data/tfds

It takes three hours of one core. At epsilon 5 % coverage is 27.3 % with cross-entropy and the softmax and 26.2 % with
Colander, 30.9 % and 41.0 % with CRL; with none of five ways of training can the difference be told from zero over five
seeds (docs/methods/colander.md). The papers have no figure for this set.
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
