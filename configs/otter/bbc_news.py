"""OTTER on BBC News, five topics.

python -m experiments.otter bbc_news
"""

from experiments.otter import Config


def get_config() -> Config:
    return Config(dataset="bbc_news", template="a news article about {}")
