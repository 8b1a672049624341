"""OTTER on two Gaussians under label shift, beside the Bayes decisions.

python -m experiments.synthetic bayes_recovery
"""

from experiments.synthetic import BayesRecovery


def get_config() -> BayesRecovery:
    return BayesRecovery()
