"""A small GPT-2 from scratch on books: 2.2 M parameters, 1.0 M tokens.

    python -m experiments.language_model gpt2_books --texts ../shared/data/books

438 s on two cores that three to five other processes used, too, at up to 2,700 tokens a second. On two novels of Austen
expect 1.74 bits per held-out byte [1.71, 1.77]; lzma, with the rest of the novels before, needs 2.10, and bz2 alone
2.32.
"""

from experiments.language_model_config import Training


def get_config() -> Training:
    return Training(architecture="gpt2", unwrap_lines=True, prompts=("The", "She was", "It is a truth"))
