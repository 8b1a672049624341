"""Positive or negative in four domains, with MiniLM: five methods, each with three rates and three seeds.

    python -m experiments.more sentiment

About 16 minutes on two quiet cores, by the tokens of its steps beside those of trec_fine; it has not been run yet, so
that there is no figure to expect. It trains on 3,000 of the snippets, once. No paper reports MoRe on them.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(
        dataset="sentiment_domains", length=32, train_examples=3_000, validation_examples=500, test_examples=1_000
    )
