"""A transformer of 0.1 M parameters learns 240 made-up facts; the whole study of The Cost of Compression on it.

python -m experiments.compression synthetic_facts
"""

from experiments.compression_config import Synthetic


def get_config() -> Synthetic:
    return Synthetic(
        prunings=("magnitude", "wanda", "sparsegpt"),
        sparsities=(0.3, 0.5, 0.8),
        budgets=(0.5,),
        schemes=("int8 dynamic", "int8", "int4", "int4 GPTQ"),
        group_size=32,
        combined_sparsities=(0.2, 0.4),
        head_sparsities=(0.5,),
        learning_rates=(3e-3,),
        recovery_steps=40,
        recovery_batch=48,
        calibration_sequences=16,
        calibration_length=32,
        context=32,
        checkpoint_every=100,
    )
