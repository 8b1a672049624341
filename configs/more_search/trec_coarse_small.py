"""TREC questions, 6 kinds of answer, with MiniLM: a space of six points that a laptop searches in minutes.

python -m experiments.more_search trec_coarse_small
"""

from experiments.more_search import Search


def get_config() -> Search:
    return Search(
        blocks=(1, 4),
        block_ranks=(4,),
        targets=("query,value", "query,key,value"),
        learning_rates=(1e-3, 5e-3),
        rungs=(15, 30),
        validation_examples=300,
    )
