"""A small GPT-2 from scratch on books.

python -m experiments.language_model gpt2_books --texts ../shared/data/books
"""

from experiments.language_model_config import Training


def get_config() -> Training:
    return Training(architecture="gpt2", unwrap_lines=True, prompts=("", "She was", "It is a truth"))
