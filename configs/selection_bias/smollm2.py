"""SmolLM2-135M-Instruct (Q4_1) answers with a letter: naive and OTTER accuracy and RStd, as OTTER's table.

    python -m experiments.selection_bias smollm2 --facts FILE --truthful FILE

It has not been run yet, so that there is no figure to expect: about 700 questions of some 60 tokens. The report has the
published figures, of larger models on other questions, beside.
"""

from experiments.selection_bias import Config


def get_config() -> Config:
    return Config()
