"""TREC questions, 6 kinds of answer, with MiniLM: MoRe of 1 and 4 blocks on two sets of targets, at two rates.

    python -m experiments.more_search trec_coarse_small

3.5 minutes on two shared cores (206 s on 2026-11-21). Both points that did all 45 steps have one block, which is LoRA:
85.8 % [80.3, 91.3] of the validation rows with 36,864 parameters and 86.6 % [80.2, 92.9] with 55,296, which does not
tell them apart. The points with four blocks were let go after 15 steps. No paper has a figure for this.
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
