"""TREC questions, 6 kinds of answer, with MiniLM: MoRe of 1, 2 and 4 blocks and two ranks on two sets of targets.

    python -m experiments.more_search trec_coarse

Five minutes on two cores, 2026-11-22. Of 12 candidates with three seeds each, four reached 60 steps, and two are on the
front, both with one block, which is LoRA: 87.9 % [87.1, 88.6] of 500 validation questions with 36,864 parameters, 88.9
[87.5, 90.4] with 55,296 (t intervals over seeds). Two blocks of that cost have 88.7. No paper has a figure for this.
"""

from experiments.more_search import Search


def get_config() -> Search:
    return Search(validation_examples=500)
