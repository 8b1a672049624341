"""TREC questions, 50 kinds of answer, with MiniLM."""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_fine", validation_examples=500)
