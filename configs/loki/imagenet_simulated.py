"""Loki on the tree of ImageNet's 1,000 classes, with SIMULATED scores: no image was looked at.

    python -m experiments.loki imagenet_simulated --hierarchy imagenet1k_wordnet.json.gz

Three to five minutes on two cores. Expect E[d^2] of 22.0 for the argmax, 17.0 for Loki over the classes and 11.4 over
any node with all classes observed, and 37.8, 28.8 and 19.5 with 250. How much is saved follows from the noise, which
was chosen so that the argmax is right half of the time: over the classes a quarter, against 15 % with all classes at a
noise of 1.5, and at most 1.5 % at 1.5 in 64 dimensions (one choice of classes each). It says nothing of how much is
saved on images; the paper's figure 2 has 33 to 25 there, read off, with another tree. The exponent 2 is the best of
five with 500 and 750 observed classes, 4 with 250; the paper's is 2 throughout. The cost is accuracy: 49.4 % for the
argmax, 37.8 % over the classes, 10.7 % over any node. Choosing the next class by the locus makes the locus larger (368
nodes against 271 with 110 observed), but E[d^2] is lower after a random choice (26.0 against 27.8), which leaves the
classes nearer to an observed one: a mean squared distance of 11.5 against 13.1.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(
        dataset="simulated",
        observed=(10, 25, 50, 100, 250, 500, 750, 1000),
        ablation=(250, 500, 750),
        active_start=10,
        active_steps=100,
        active_every=20,
    )
