"""OTTER on the questions of TREC, 6 coarse classes, 1,059 test questions.

    python -m experiments.otter trec_coarse

About 40 s on two cores. Expect zero-shot 42.7 % and OTTER 53.3 %; under Dirichlet shift 41.2 % and 58.7 %, and 56.5 %
with the distribution estimated by MLLS. The paper has no such data set.
"""

from experiments.otter import Config


def get_config() -> Config:
    return Config(dataset="trec_coarse", template="a question that asks for {}")
