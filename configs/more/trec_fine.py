"""TREC questions, 50 kinds of answer, with MiniLM: five methods, each with three rates and three seeds.

    python -m experiments.more trec_fine

About 13 minutes on two quiet cores, from the 0.45 CPU seconds that a step of a trial took (0.8 of full fine-tuning); it
has not been run to its end on a quiet machine. Expect for MoRe validation accuracies of 41.4, 77.6 and 85.4 % at the
three rates, after one pass over the 3,249 training questions, with 55,296 parameters and a head of 19,250. No paper
reports MoRe on TREC.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_fine", validation_examples=500)
