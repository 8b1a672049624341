"""A small Mamba from scratch on books: 1.4 M parameters, 0.6 M tokens.

    python -m experiments.language_model mamba_books --texts ../shared/data/books

8 and 16 minutes in two runs on two cores that five to ten other processes used, too. On two novels of Austen expect
1.58 bits per held-out byte [1.55, 1.61], less than GPT-2 after more tokens; lzma, with the rest of the novels before,
needs 2.10, and bz2 alone 2.32.
"""

from experiments.language_model_config import Training


def get_config() -> Training:
    return Training(architecture="mamba", steps=600, unwrap_lines=True, prompts=("The", "She was", "It is a truth"))
