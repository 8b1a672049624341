"""What auto-labelling is compared with (Vishwakarma et al., 2023, section 4.1): each is a run of other settings.

``TBAL`` labels in every round. Selective classification labels once, after all queries, above thresholds; without it
everything that is left is labelled. Active learning asks by a strategy in batches, passive learning at random at once.
"""

import dataclasses

from zsml_jax.autolabel.config import Config


def active_selective(config: Config) -> Config:
    """Returns active learning followed by selective classification (AL+SC)."""
    return dataclasses.replace(config, labels_when="last_round")


def passive_selective(config: Config) -> Config:
    """Returns passive learning followed by selective classification (PL+SC).

    >>> from zsml_jax.autolabel import Roles, mlp
    >>> passive_selective(Config(mlp(2, (), 2), 2, Roles(0, 9, 9))).rounds
    1
    """
    return dataclasses.replace(config, labels_when="last_round", seed=config.budget, query="random")


def active(config: Config) -> Config:
    """Returns active learning that labels everything (AL)."""
    return dataclasses.replace(config, labels_when="all")


def passive(config: Config) -> Config:
    """Returns passive learning that labels everything (PL)."""
    return dataclasses.replace(config, labels_when="all", seed=config.budget, query="random")


#: All by the names of the paper's tables.
BASELINES = {"AL+SC": active_selective, "PL+SC": passive_selective, "AL": active, "PL": passive}
