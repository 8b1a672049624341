"""scikit-learn's digits with a small MLP: five ways of training, eight confidence functions, certified thresholds.

    python -m experiments.colander digits

It takes about 40 minutes on two cores. At epsilon 5 % coverage is 61.8 % with cross-entropy and the softmax and 68.3 %
with Colander, 63.2 % and 74.4 % with squentropy, where alone of five ways of training the difference over five seeds
has an interval above zero (docs/methods/colander.md). The paper has no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(shared=True, roles=(50, 200, 400, 100), seed_points=80, batch_points=40, budget=200)
