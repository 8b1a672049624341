"""SmolLM2-135M-Instruct (Q4_1), 2,000 facts of Wikidata: the whole study of The Cost of Compression.

    python -m experiments.compression smollm2_wikidata --facts FILE --texts FOLDER --chats FILE

It has not been run to its end yet, so that there is no figure to expect. About 100 points of 8 TFLOP (2,000 facts of
12 tokens, four passages in overlapping windows, 10 chats) and 39 passes of calibration data: hours on two cores. A run
that is stopped goes on with the next point. The paper has no decoder of this size.
"""

from experiments.compression_config import Pretrained


def get_config() -> Pretrained:
    return Pretrained(
        sparsities=(0.1, 0.3, 0.5, 0.7, 0.9),
        budgets=(0.5,),
        combined_sparsities=(0.4,),
        head_sparsities=(0.1, 0.5, 0.9),
        num_passages=4,
        num_chats=10,
        recovery_batch=4,
        calibration_sequences=16,
    )
