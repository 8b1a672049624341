"""TREC questions, 6 kinds of answer, with MiniLM: five methods, each with three rates and three seeds.

    python -m experiments.more trec_coarse

About 13 minutes on two quiet cores, as for trec_fine, of which it has the questions and the steps; it has not been run
yet, so that there is no figure to expect. No paper reports MoRe on TREC.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_coarse", validation_examples=500)
