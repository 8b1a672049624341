"""BBC News, 5 topics, as MiniLM embeds them, with a small MLP.

    python -m experiments.colander bbc_news

It takes ten minutes on two cores. At epsilon 5 % coverage is 59.4 % with cross-entropy and the softmax and 57.3 % with
Colander; with none of five ways of training can the difference be told from zero over five seeds
(docs/methods/colander.md). The papers have no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(
        dataset="bbc_news",
        shared=True,
        roles=(50, 150, 400, 100),
        seed_points=50,
        batch_points=25,
        budget=100,
        learning_rate=0.03,
    )
