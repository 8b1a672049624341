"""SmolLM2-135M-Instruct (Q4_1) writes what kind of answer a TREC question wants: four methods, three rates and seeds.

    python -m experiments.more smollm2_trec

About 20 minutes on two quiet cores, by the operations of its steps; it has not been run yet, so that there is no figure
to expect. 192 training questions, 24 steps: little, for a CPU. No paper reports MoRe on TREC.
"""

from experiments.more_config import Instruction


def get_config() -> Instruction:
    return Instruction(
        answers=("abbreviation", "description", "thing", "person", "place", "number"),
        learning_rates=(1e-4, 5e-4, 2.5e-3),
        steps=24,
        batch_size=8,
        length=32,
        validation_examples=100,
        test_examples=200,
        report_every=4,
        timed_steps=4,
    )
