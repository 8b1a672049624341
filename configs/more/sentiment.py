"""Positive or negative in four domains, with MiniLM."""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(
        dataset="sentiment_domains", length=32, train_examples=3_000, validation_examples=500, test_examples=1_000
    )
