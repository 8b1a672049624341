"""scikit-learn's digits with a small MLP: five ways of training, eight confidence functions, certified thresholds.

    python -m experiments.colander digits

The paper has no figure for this set.
"""

from experiments.colander_config import Cells


def get_config() -> Cells:
    return Cells(shared=True, roles=(50, 200, 400, 100), seed_points=80, batch_points=40, budget=200)
