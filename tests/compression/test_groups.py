"""The groups of every family against the linears of the same model in transformers."""

import numpy as np
import pytest

from zsml_jax import compression
from zsml_jax.compression.groups import Groups, equal_budget, groups, kernels, weights
from zsml_jax.models import pretrained as loading
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.train import parameter_paths

_LLAMA = {
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 12, "max_position_embeddings": 16,
}  # fmt: skip
_GPT2 = {"vocab_size": 11, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": 12, "n_positions": 16}
_NEO = {
    "vocab_size": 11, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "attention_types": [[["global", "local"], 1]], "window_size": 3,
}  # fmt: skip
_BERT = {
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16,
}  # fmt: skip
_DISTILBERT = {"vocab_size": 11, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16}
_MAMBA = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "state_size": 3}
_T5 = {
    "vocab_size": 11, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
_NEOX = {**{k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}, "rotary_pct": 0.5}
CONFIGS = {
    "gpt2": _GPT2, "gpt_neo": _NEO, "gpt_neox": _NEOX,
    "llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA, "qwen3": {**_LLAMA, "head_dim": 4}, "mamba": _MAMBA,
    "bert": _BERT, "roberta": _BERT, "distilbert": _DISTILBERT, "albert": {**_BERT, "embedding_size": 4}, "t5": _T5,
}  # fmt: skip
ENCODERS = ("bert", "roberta", "distilbert", "albert")
#: Weights of attention (query, key, value, output) and MLP of one layer of width 8, where nothing is unusual.
ATTENTION, MLP = 4 * 8 * 8, 2 * 8 * 12
LLAMA_ATTENTION, LLAMA_MLP = 2 * 8 * 8 + 2 * 8 * 4, 3 * 8 * 12


def torch_model(model_type):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    config = transformers.AutoConfig.for_model(model_type, **CONFIGS[model_type], pad_token_id=0)
    auto = {"t5": transformers.AutoModelForSeq2SeqLM, **dict.fromkeys(ENCODERS, transformers.AutoModelForMaskedLM)}
    with torch.device("meta"):
        return auto.get(model_type, transformers.AutoModelForCausalLM).from_config(config)


def abstract(model_type):
    """A model of shapes alone."""
    family = loading.FAMILIES[model_type]
    names = {
        "bert": ["cls.predictions.transform.dense.weight"],
        "roberta": ["lm_head.dense.weight"],
        "distilbert": ["vocab_transform.weight"],
        "albert": ["predictions.dense.weight"],
    }
    hub = {**CONFIGS[model_type], "model_type": model_type, "pad_token_id": 0}
    config = family.config(hub, names.get(model_type, ["lm_head.weight"]), "float32")
    return Pretrained(family.abstract_params(config), family.module(config), config, model_type=model_type)


def sizes(found: Groups, params):
    return {
        name: weights(params, paths)
        for name in ("attention", "feed_forward", "mixer", "other", "head")
        if (paths := getattr(found, name))
    }


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_groups_are_the_same_in_every_family(model_type):
    pretrained = abstract(model_type)
    found = sizes(groups(pretrained), pretrained.params)
    expected = {"attention": 2 * ATTENTION, "feed_forward": 2 * MLP}
    if model_type in ("llama", "mistral", "qwen2", "qwen3"):
        expected = {"attention": 2 * LLAMA_ATTENTION, "feed_forward": 2 * LLAMA_MLP}
    if model_type == "mamba":
        expected = {"mixer": found["mixer"]}
    if model_type == "albert":  # one layer, shared, and a transform to and from the embeddings' width
        expected = {"attention": ATTENTION, "feed_forward": MLP, "other": 2 * 4 * 8}
    if model_type in ("bert", "roberta", "distilbert"):
        expected["other"] = 8 * 8
    if model_type == "t5":  # two stacks, one of them with attention to the other
        expected = {"attention": 6 * ATTENTION, "feed_forward": 4 * LLAMA_MLP}
    if model_type in ("llama", "mistral", "gpt_neox", "t5"):
        expected["head"] = 8 * 11
    tied = not getattr(pretrained.config, "tied", True)
    assert ("head" in found) == tied
    found.pop("head", None), expected.pop("head", None)
    assert found == expected


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_groups_cover_all_dense_kernels_once(model_type):
    pretrained = abstract(model_type)
    found = groups(pretrained)
    paths = parameter_paths.paths(pretrained.params)
    dense = [path for path in paths if path.endswith("/kernel")]
    assert sorted(found.all_and_head) == sorted(dense)
    assert set(found.all_and_head) - set(found.all) == set(found.head)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("model_type", CONFIGS)
def test_all_is_what_the_paper_prunes_all_linears_of_transformers_but_the_last(model_type):
    model = torch_model(model_type)
    pretrained = abstract(model_type)
    linear = [module for module in model.modules() if type(module).__name__ in ("Linear", "Conv1D")]
    assert sum(module.weight.numel() for module in linear[:-1]) == weights(pretrained.params, groups(pretrained).all)


@pytest.mark.parametrize(("model_type", "moved"), [("bert", True), ("roberta", True), ("albert", False), ("t5", False)])
def test_the_papers_groups_count_the_attentions_output_as_feed_forward_in_bert_and_roberta(model_type, moved):
    pretrained = abstract(model_type)
    uniform, paper = groups(pretrained), groups(pretrained, preset="paper")
    assert sorted(uniform.all) == sorted(paper.all)
    out = [path for path in paper.feed_forward if "attention/out" in path]
    assert len(out) == (2 if moved else 0)
    assert (paper == uniform) != moved
    assert not set(paper.attention) & set(paper.feed_forward)


def test_equal_budgets_remove_as_many_weights_of_each_group():
    pretrained = abstract("llama")
    found = groups(pretrained)
    chosen = {"attention": found.attention, "feed_forward": found.feed_forward}
    share = equal_budget(pretrained.params, chosen, removed=96)
    assert share == {"attention": 96 / (2 * LLAMA_ATTENTION), "feed_forward": 96 / (2 * LLAMA_MLP)}
    with pytest.raises(ValueError, match=r"removed must be at least 0 and less than the weights of \['attention'\]"):
        equal_budget(pretrained.params, chosen, removed=2 * LLAMA_ATTENTION)


def test_groups_that_are_not_there_are_refused():
    found = groups(abstract("gpt2"))
    with pytest.raises(ValueError, match="group must be one of .*'attention', .* got 'attn'"):
        found["attn"]
    with pytest.raises(ValueError, match="group 'mixer' has no kernel in this model; those that have are"):
        found["mixer"]
    with pytest.raises(ValueError, match="group 'attention' has no kernel"):
        groups(abstract("mamba"))["attention"]
    assert found["attention"] == found.attention


def test_what_is_no_kernel_or_not_finite_is_refused(unchecked_types):
    params = {"up": {"kernel": np.ones((2, 2)), "bias": np.zeros(2)}, "conv": {"kernel": np.ones((2, 2, 2, 2))}}
    assert list(kernels(params, ["up/kernel"])) == ["up/kernel"]
    for path in ("up/bias", "conv/kernel"):
        with pytest.raises(ValueError, match=f"groups must be kernels of dense layers, .*; {path} is not one"):
            kernels(params, [path])
    with pytest.raises(ValueError, match="groups|patterns: the pattern 'down/kernel' matches no parameter"):
        kernels(params, ["down/kernel"])
    params["up"]["kernel"][0, 0] = np.nan
    with pytest.raises(ValueError, match="params must be finite, but up/kernel has nan"):
        kernels(params, ["up/kernel"])
    with pytest.raises(ValueError, match="preset must be 'uniform' or 'paper', got 'theirs'"):
        compression.groups(abstract("gpt2"), preset="theirs")
