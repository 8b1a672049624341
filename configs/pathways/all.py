"""All pathways of 10 to 300 genes in the file under 63 signatures, then link prediction on 200 of them.

    python -m experiments.pathways all --graphs-file pathways.json.gz

Never run: some 1,270 graphs at half a minute to ten minutes each are days on two cores.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(graphs=10_000, smallest=3, largest=300, link_graphs=200)
