"""scikit-learn's digits with a small MLP: five ways of training, eight confidence functions, certified thresholds.

    python -m experiments.colander digits

It has not been run to its end yet. Of eight of its cells, at epsilon 5 %, coverage was 61.8 % with cross-entropy and
the softmax and 60.6 % with Colander, 63.2 % and 71.6 % with squentropy; neither difference can be told from zero over
five seeds (docs/methods/colander.md). The paper has no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(shared=True, roles=(50, 200, 400, 100), seed_points=80, batch_points=40, budget=200)
