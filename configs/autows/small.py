"""Digits, a PDE, power demand and two tables, raw and by principal components, with all methods but zero-shot.

    python -m experiments.autows small

Not run as a whole yet, so that there is no figure to expect: of its cells only a few were run, for tests. No figures
of these sets are published.
"""

from experiments.autows import Config


def get_config() -> Config:
    return Config(datasets=("digits", "darcy", "power_demand", "breast_cancer", "wine"))
