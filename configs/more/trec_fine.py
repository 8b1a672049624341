"""TREC questions, 50 kinds of answer, with MiniLM: five methods, each with three rates and three seeds.

    python -m experiments.more trec_fine

About 13 minutes on two quiet cores, from the 0.45 CPU seconds that a step of a trial took (0.8 of full fine-tuning). So
far only MoRe's part has been run: expect for it validation accuracies of 41.4, 77.6 and 85.4 % at the three rates, and
at the last of them a test accuracy of 86.2 % [85.3, 87.0], after one pass over the 3,249 training questions, with
55,296 parameters and a head of 19,250. No paper reports MoRe on TREC.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_fine", validation_examples=500)
