"""A small GPT-2 from scratch on books.

python -m experiments.language_model gpt2_books --texts ../shared/data/books
"""

from experiments.language_model import Config


def get_config() -> Config:
    return Config(architecture="gpt2", unwrap_lines=True, prompts=("", "She was", "It is a truth"))
