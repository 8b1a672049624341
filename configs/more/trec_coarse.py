"""TREC questions, 6 kinds of answer, with MiniLM."""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_coarse", validation_examples=500)
