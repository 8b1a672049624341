"""OTTER on the questions of TREC, 50 fine classes, 1,059 test questions.

    python -m experiments.otter trec_fine

About 55 s on two cores. Expect zero-shot 31.5 %, OTTER 44.5 %, log-space prior matching 44.9 %, and H-OTTER 39.3 %:
the coarse level is the weak one here. The paper has no such data set.
"""

from experiments.otter import Config


def get_config() -> Config:
    return Config(dataset="trec_fine", template="a question that asks for {}", few_shot=3)
