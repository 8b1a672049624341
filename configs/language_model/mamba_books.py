"""A small Mamba from scratch on books.

python -m experiments.language_model mamba_books --texts ../shared/data/books
"""

from experiments.language_model import Config


def get_config() -> Config:
    return Config(architecture="mamba", steps=600, unwrap_lines=True, prompts=("", "She was", "It is a truth"))
