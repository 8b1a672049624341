"""RoboShot on sentiment in four domains: film and product reviews, newspaper editorials, tweets.

python -m experiments.roboshot sentiment_domains
"""

from experiments.roboshot import Config


def get_config() -> Config:
    return Config()
