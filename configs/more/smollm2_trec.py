"""SmolLM2 says what kind of answer a TREC question wants."""

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
