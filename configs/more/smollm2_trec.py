"""SmolLM2-135M-Instruct (Q4_1) writes what kind of answer a TREC question wants: four methods, three rates and seeds.

    python -m experiments.more smollm2_trec

25 minutes on two cores, 2026-11-22. Of 200 test questions, answered exactly, in percent with t intervals over three
seeds: full fine-tuning 56.7 [-2.9, 116.2], LoRA 53.7 [10.7, 96.6], DoRA 51.2 [19.4, 82.9], MoRe 46.5 [32.2, 60.8]; none
before training. Three seeds of 24 steps (192 questions, little, for a CPU) tell none of them apart. Every method
chose 0.01 (0.001 for the model under full fine-tuning), the middle of the grid. At 0.04 MoRe still answers 17 % of 100
validation questions and LoRA and DoRA none; at 0.0025 LoRA 21, DoRA 3 and MoRe 0. No paper reports MoRe on TREC.
"""

from experiments.more_config import Instruction


def get_config() -> Instruction:
    return Instruction(
        answers=("abbreviation", "description", "thing", "person", "place", "number"),
        learning_rates=(2.5e-3, 1e-2, 4e-2),
        steps=24,
        batch_size=8,
        length=32,
        validation_examples=100,
        test_examples=200,
        report_every=4,
        timed_steps=4,
    )
