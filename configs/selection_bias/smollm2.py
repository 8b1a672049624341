"""SmolLM2-135M-Instruct (Q4_1) answers with a letter: naive and OTTER accuracy and RStd, as OTTER's table.

python -m experiments.selection_bias smollm2 --facts FILE --truthful FILE
"""

from experiments.selection_bias import Config


def get_config() -> Config:
    return Config()
