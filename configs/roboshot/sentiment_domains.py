"""RoboShot on sentiment in four domains: film and product reviews, newspaper editorials, tweets.

    python -m experiments.roboshot sentiment_domains

About 80 s on two cores, and a minute more where the texts are not embedded yet. Expect, for domains as groups, micro
average and worst domain of 71.9 % and 68.8 % zero-shot, 74.4 % and 70.7 % boosting alone, 73.9 % and 69.9 % RoboShot,
74.6 % and 70.6 % label-free adaptation; by domain and class a worst group of 57.8 %, 62.9 %, 59.1 % and 66.4 %.
Rejecting the domains' style changes nothing beyond the intervals (+0.3 points, -0.5 to 1.0), the gap between domains
does not close, prompts that name the domain are no better than zero-shot, and choosing the adaptation's strength by 100
labels does worse than its defaults. The paper's text sets are others.
"""

from experiments.roboshot import Config

TEXTS = ("film review", "product review", "newspaper editorial", "tweet")
GROUP_PROMPTS = tuple(
    tuple(f"This {text} expresses a {opinion} opinion." for text in TEXTS) for opinion in ("negative", "positive")
)


def get_config() -> Config:
    return Config(group_prompts=GROUP_PROMPTS)
