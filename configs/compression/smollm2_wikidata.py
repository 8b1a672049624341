"""SmolLM2-135M-Instruct (Q4_1), 2,000 facts of Wikidata: the whole study of The Cost of Compression.

    python -m experiments.compression smollm2_wikidata --facts FILE --texts FOLDER --chats FILE

On 2026-11-22, 98 points of 50 s and four trainings of four minutes, two hours on two cores; the report takes minutes
more. The model knows little: 5.5 % [4.6, 6.6] of the answers come first, 24.9 % among ten. Left of the 5.5 %, of
attention, feed-forward and all: at 30 % by magnitude 3.9, 1.4, 1.1; by Wanda 3.7, 4.6, 3.2; by SparseGPT 4.3, 5.3, 3.6;
at 50 % by magnitude 0.1, 0.0, 0.0; by Wanda 1.9, 0.8, 0.8; by SparseGPT 2.4, 1.6, 0.8; int8 5.3, 5.5, 5.6; the paper's
int8 4.1, 1.3, 0.7; int4 6.2, 6.0, 5.6. The findings: all modules hurt most: confirmed against attention, not decided
against feed-forward; a rapid fall above 50 %: refuted, it is over by then; attention is cheaper to quantise: confirmed;
structured pruning of the final layer is worse: confirmed by magnitude, and the other way round at random. After 100
steps on the half-pruned model perplexity is 126 (MoRe) and 101 (LoRA) against 498, and no fact has come back. The paper
has no decoder of this size.
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
