"""MNIST with LeNet-5 at the Colander paper's settings: 500 queries, 500 labelled points, reused, thresholds by sigma.

    python -m experiments.colander mnist_paper --data-dir ../shared/data/tfds

It has not been run to its end yet. Published (table 2, from code that read the true labels): error and coverage of
cross-entropy with the softmax 4.1 / 85.0 %, with Colander 4.2 / 95.6 %. Hyperparameters are the released fixed ones of
each objective, and pixels go from 0 to 255, as they reach the released net.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="mnist",
        split="train",
        net="lenet5",
        raw_pixels=True,
        objectives=("cross_entropy", "squentropy", "crl", "fmfp"),
        errors=(0.05,),
        method="sigma",
        min_count=10,
        roles=(0, 250, 250, 0),
        reuse=True,
        seed_points=200,
        batch_points=20,
        budget=500,
        released="mnist",
        published="mnist",
    )
