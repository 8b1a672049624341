"""Adapters on every family of the zoo: whatever its layers are called and however they are stacked."""

import jax
import numpy as np
import pytest

from tests.peft.conftest import GOLDEN, TOKENS, randomised
from zsml_jax import models, peft

FOLDERS = ["decoders/gpt2", "decoders/gpt_neo", "decoders/gpt_neox", "decoders/qwen3", "encoders/albert",
           "encoders/distilbert", "encoders/roberta", "mamba", "t5/v1_0", "t5/v1_1", "clip"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_all_linear_layers_of_a_family_are_adapted_and_merged(folder):
    model = models.load(GOLDEN / folder)
    adapter = randomised(peft.adapt(model, peft.MoRe(blocks=2, block_rank=2), key=jax.random.key(0)), scale=0.1)
    inputs = {"decoder_tokens": TOKENS[:, :3]} if folder.startswith("t5") else {}
    adapted = jax.jit(peft.apply)(model, adapter, TOKENS, **inputs)
    run = jax.jit(model.apply)
    np.testing.assert_allclose(run(peft.merge(model, adapter), TOKENS, **inputs), adapted, atol=2e-5, rtol=2e-5)
    assert np.abs(adapted - run(model.params, TOKENS, **inputs)).max() > 1e-2
    assert len(adapter.arrays) >= 4
