"""SmolLM2-135M-Instruct (Q4_1) on speeches: perplexity and bits per byte, nothing is trained.

    python -m experiments.language_model smollm2_speeches --texts ../shared/data/books/sotu

22 minutes on two cores that five to ten other processes used, too. Every ninth passage of 40 State of the Union
speeches of 1790 to 2021: expect 0.947 bits per byte [0.926, 0.967], a perplexity of 27.7 per token [25.4, 30.3]; lzma,
with the rest of the speeches before, needs 1.95. The speeches are public: the model may have been trained on them.
"""

from experiments.language_model_config import Evaluation


def get_config() -> Evaluation:
    return Evaluation(passage_chars=6_000, held_out_every=9)
