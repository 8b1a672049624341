"""SmolLM2-135M-Instruct (Q4_1) writes what kind of answer a TREC question wants: four methods, three rates and seeds.

    python -m experiments.more smollm2_trec

It has not been run to its end with this grid, so that there is no figure to expect. With rates of 1e-4, 5e-4 and 2.5e-3
(a run stopped near its end, after 41 minutes on two busy cores, 2026-11-21) every adapter was at the end of the grid,
far from its best: of 100 validation questions MoRe had 0, 0 and 0 %, LoRA 0, 0 and 21 %, DoRA 0, 0 and 3 %, full
fine-tuning 0, 64 and 71 %. 192 training questions, 24 steps: little, for a CPU. No paper reports MoRe on TREC.
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
