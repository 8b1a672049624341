"""LoRA and GraLoRA folders against the ``peft`` library: what it loads of ours, and what we read of its."""

import jax
import numpy as np
import pytest

from tests.peft.conftest import GOLDEN, TOKENS, randomised
from zsml_jax import models, peft

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.slow,
    # The peft library asks transformers for a property that it is about to rename, and sets what GPT-2's layers need.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

FOLDERS = {
    "llama": GOLDEN / "decoders" / "llama",
    "gpt2": GOLDEN / "decoders" / "gpt2",
    "gpt_neox": GOLDEN / "decoders" / "gpt_neox",
    "bert": GOLDEN / "encoders" / "bert",
}
ALL = {"target_modules": "all-linear"}
QUERY = {"llama": ["q_proj", "up_proj"], "bert": ["query"]}
PATTERNS = {"rank_pattern": {"layers.1.self_attn.q_proj": 5}, "alpha_pattern": {"k_proj": 7}}
THEIRS = {
    "rslora": (lambda p, m: p.LoraConfig(r=4, lora_alpha=5, use_rslora=True, **ALL), tuple(FOLDERS)),
    "dora": (lambda p, m: p.LoraConfig(r=3, lora_alpha=5, use_dora=True, **ALL), ("llama", "gpt2", "bert")),
    "patterns": (
        lambda p, m: p.LoraConfig(r=2, layers_to_transform=[1], target_modules=["q_proj", "k_proj"], **PATTERNS),
        ("llama",),
    ),
    "gralora": (lambda p, m: p.GraloraConfig(r=4, alpha=6, gralora_k=2, target_modules=QUERY[m]), ("llama", "bert")),
    "hybrid": (
        lambda p, m: p.GraloraConfig(r=4, alpha=6, gralora_k=2, hybrid_r=2, target_modules=QUERY[m]),
        ("llama", "bert"),
    ),
}


@pytest.fixture
def library():
    pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    return pytest.importorskip("peft", reason="the oracle extra is not installed")


def base_of(model):
    import transformers

    auto = transformers.AutoModel if model == "bert" else transformers.AutoModelForCausalLM
    return auto.from_pretrained(FOLDERS[model])


def output_of(model):
    import torch

    with torch.no_grad():
        output = model.eval()(torch.from_numpy(TOKENS).long())
    return (output.logits if hasattr(output, "logits") else output.last_hidden_state).numpy()


@pytest.mark.parametrize(
    "config", [peft.MoRe(blocks=2, block_rank=2), peft.LoRA(rank=2, alpha=5, targets=["query", "down"])]
)
@pytest.mark.parametrize("model", FOLDERS)
def test_the_library_computes_with_what_we_export(model, config, library, tmp_path):
    pretrained = models.load(FOLDERS[model])
    adapter = randomised(peft.adapt(pretrained, config, key=jax.random.key(0)), scale=0.2)
    peft.export_lora(pretrained, adapter, tmp_path / "out")
    ours = jax.jit(peft.apply)(pretrained, adapter, TOKENS)
    theirs = output_of(library.PeftModel.from_pretrained(base_of(model), tmp_path / "out"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert np.abs(ours - pretrained.apply(pretrained.params, TOKENS)).max() > 1e-2
    again = peft.import_peft(tmp_path / "out", pretrained)
    np.testing.assert_allclose(jax.jit(peft.apply)(pretrained, again, TOKENS), ours, atol=1e-5)


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, (_, each) in THEIRS.items() for model in each])
def test_we_compute_with_what_the_library_saves(name, model, library, tmp_path):
    import torch

    theirs = library.get_peft_model(base_of(model), THEIRS[name][0](library, model))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "theirs")
    pretrained = models.load(FOLDERS[model])
    adapter = peft.import_peft(tmp_path / "theirs", pretrained)
    np.testing.assert_allclose(jax.jit(peft.apply)(pretrained, adapter, TOKENS), output_of(theirs), atol=1e-5)
