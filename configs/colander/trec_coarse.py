"""TREC questions, 6 kinds of answer, as MiniLM embeds them, with a small MLP.

    python -m experiments.colander trec_coarse

It has not been run to its end yet. The papers have no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="trec_coarse",
        shared=True,
        roles=(100, 300, 800, 300),
        seed_points=200,
        batch_points=100,
        budget=500,
        learning_rate=0.03,
    )
