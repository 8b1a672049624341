"""A small Mamba from scratch on books.

python -m experiments.language_model mamba_books --texts ../shared/data/books
"""

from experiments.language_model_config import Training


def get_config() -> Training:
    return Training(architecture="mamba", steps=600, unwrap_lines=True, prompts=("", "She was", "It is a truth"))
