"""Digits, a PDE, power demand and two tables, raw and by principal components, with all seven methods.

    python -m experiments.autows small

MEASURED
"""

from experiments.autows import Config


def get_config() -> Config:
    return Config(datasets=("digits", "darcy", "power_demand", "breast_cancer", "wine"))
