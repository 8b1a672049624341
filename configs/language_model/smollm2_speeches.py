"""SmolLM2 on speeches.

python -m experiments.language_model smollm2_speeches --texts ../shared/data/books/sotu
"""

from experiments.language_model_config import Evaluation


def get_config() -> Evaluation:
    return Evaluation(passage_chars=6_000, held_out_every=9)
