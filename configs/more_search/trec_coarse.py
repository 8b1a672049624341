"""TREC questions, 6 kinds of answer, with MiniLM: MoRe of 1, 2 and 4 blocks and two ranks on two sets of targets.

    python -m experiments.more_search trec_coarse

It has not been run to its end yet, so that there is no figure to expect. No paper has one for this.
"""

from experiments.more_search import Search


def get_config() -> Search:
    return Search(validation_examples=500)
