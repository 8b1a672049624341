"""SmolLM2-135M-Instruct (Q4_1), 400 facts of Wikidata: pruning by magnitude and Wanda at three sparsities, and int8.

    python -m experiments.compression smollm2_small --facts FILE --texts FOLDER --chats FILE

It has not been run yet, so that there is no figure to expect: about 45 points of 2 TFLOP each.
"""

from experiments.compression_config import Pretrained


def get_config() -> Pretrained:
    return Pretrained(
        num_facts=400,
        num_passages=4,
        num_chats=10,
        prunings=("magnitude", "wanda"),
        sparsities=(0.3, 0.5, 0.7),
        budgets=(0.5,),
        schemes=("int8 dynamic", "int4"),
        combined_sparsities=(0.4,),
        head_sparsities=(0.5,),
        learning_rates=(2e-3,),
        recovery_steps=20,
        recovery_batch=4,
        calibration_sequences=16,
        calibration_length=128,
        context=256,
    )
