"""TREC questions, 6 kinds of answer, as MiniLM embeds them, with a small MLP.

    python -m experiments.colander trec_coarse

It takes a quarter of an hour on two shared cores. Six kinds of questions are hard for 500 labels: at epsilon 5 %
coverage is 9.5 % with cross-entropy and the softmax and 5.4 % with Colander, 3.9 % over all cells; with none of five
ways of training can Colander be told from the softmax (docs/methods/colander.md). The papers have no figure for this
set.
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
