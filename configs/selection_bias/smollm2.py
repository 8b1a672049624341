"""SmolLM2-135M-Instruct (Q4_1) answers with a letter: naive and OTTER accuracy and RStd, as OTTER's table.

    python -m experiments.selection_bias smollm2 --facts FILE --truthful FILE

220 s on two busy cores, 2026-11-22. On 500 questions of Wikidata naive accuracy is 25.0 % [21.2, 29.0] with an RStd of
43.3, which is one letter for all questions; OTTER's is 26.6 % [22.8, 30.4] with 3.0. On 81 questions of TruthfulQA 25.9
[16.0, 35.8] and 43.3 become 23.5 [14.8, 33.3] and 6.6. OTTER takes the bias away; what this small model knows, it does
not tell by letters. The report has the published figures, of larger models on other questions, beside.
"""

from experiments.selection_bias import Config


def get_config() -> Config:
    return Config()
