"""Which layers a config means, and what it is told when it means none."""

import jax
import numpy as np
import pytest

from tests.transform.stacks import Numbered, Scanned, apply_of, random_params
from zsml_jax import peft
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.rotary import Rotary

X = np.ones((2, 4), np.float32)
QUERY = ["layers/attention/query"]
ATTENTION = [f"layers/attention/{name}" for name in ("query", "key", "value", "out")]
MLP = [f"layers/mlp/{name}" for name in ("up", "gate", "down")]


def abstract(pretrained, config):
    return jax.eval_shape(lambda params: peft.adapt(pretrained.replace(params=params), config, key=jax.random.key(0)),
                          pretrained.params)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({}, ATTENTION + MLP),
        ({"targets": "query"}, QUERY),
        ({"targets": ["attention/{query,key}", "up"]}, [*ATTENTION[:2], MLP[0]]),
        ({"targets": "layers/mlp/*"}, MLP),
        ({"targets": r"re:layers/.*/(query|up)"}, [*QUERY, MLP[0]]),
        ({"targets": "head"}, ["head"]),
        ({"exclude": ["mlp/*", "out"]}, ATTENTION[:3]),
    ],
)
def test_patterns_name_layers(llama, fields, paths):
    adapter = abstract(llama, peft.LoRA(rank=2, **fields))
    assert sorted(adapter.arrays) == sorted(paths)
    assert hash(adapter.method) == hash(peft.LoRA(rank=2, alpha=0.0, **fields))


def test_ranks_may_differ_between_layers(llama):
    config = peft.MoRe(blocks=2, block_rank=2, ranks={"query": 8, "*": 4}, targets=["query", "key", "value"])
    shapes = {path: own["first"].shape for path, own in abstract(llama, config).arrays.items()}
    assert {path.split("/")[-1]: shape[2] for path, shape in shapes.items()} == {"query": 8, "key": 4, "value": 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"targets": "qeury"},
            "targets: the pattern 'qeury' matches no Dense layer of the model; nearest: 'la",
        ),
        ({"targets": "re:query"}, "targets: the pattern 're:query' matches no Dense layer of the model; nearest"),
        ({"targets": "re:("}, "pattern must be a regular expression after 're:'"),
        ({"targets": ["query", "norm"]}, "the pattern 'norm' matches no Dense layer"),
        ({"exclude": "quary"}, "exclude: the pattern 'quary' matches no Dense layer"),
        ({"targets": "query", "exclude": "query"}, "must leave a Dense layer to adapt"),
        ({"ranks": {"up": 2}, "targets": "query"}, "ranks: the pattern 'up' matches no layer that is adapted"),
        ({"train": "head/bias"}, "train: the pattern 'head/bias' matches no parameter"),
        ({"layers": [0, 3]}, r"layers must lie in 0 ... 2 at 'layers/attention/query', got \[3\]"),
        ({"layers": [1], "targets": "head"}, "must leave a Dense layer to adapt"),
    ],
)
def test_what_names_nothing_is_refused(llama, fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(llama, peft.LoRA(rank=2, **fields))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: peft.LoRA(rank=0), "rank must be at least 1, got 0"),
        (lambda: peft.LoRA(ranks={"query": 0}), "rank must be at least 1, got 0"),
        (lambda: peft.MoRe(block_rank=0), "block_rank must be at least 1, got 0"),
        (lambda: peft.MoRe(blocks=0), "blocks must be at least 1, got 0"),
        (lambda: peft.LoRA(alpha=float("nan")), "alpha must be finite, got nan"),
        (lambda: peft.LoRA(dropout=1.0), "dropout must be at least 0 and below 1, got 1.0"),
        (lambda: peft.LoRA(scaling="sqrt"), "scaling must be 'rank', 'root_rank' or 'none', got 'sqrt'"),
        (lambda: peft.VeRA(ranks={"query": 2}), "ranks must be empty"),
        (lambda: peft.OFT(block_size=1), "block_size must be at least 2, got 1"),
        (lambda: peft.OFT(cayley_terms=2), "cayley_terms must be at least 4, or None, got 2"),
        (lambda: peft.BOFT(factors=0), "factors must be at least 1, got 0"),
        (lambda: peft.BOFT(block_size=3, factors=2), "block_size must be even where there are several factors, got 3"),
    ],
)
def test_configs_refuse_what_they_cannot_be(make, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        make()


def test_blocks_that_do_not_fill_a_layer_are_refused(llama):
    with pytest.raises(ValueError, match="the inputs of every layer into blocks of 16, got .'layers/mlp/down': 24"):
        abstract(llama, peft.OFT(block_size=16))
    with pytest.raises(ValueError, match="into blocks of 32"):
        abstract(llama, peft.BOFT(block_size=8, factors=3))


def test_layers_without_a_number_are_left_out_where_layers_are_chosen():
    params = random_params(Numbered(), X)
    config = peft.LoRA(rank=2, layers=[2], targets=["up", "head"])
    adapter = peft.init(apply_of(Numbered()), params, config, X, key=jax.random.key(0))
    assert sorted(adapter.arrays) == ["layer_2/mlp/up"]


def test_parameters_are_counted_as_they_are_trained():
    params = random_params(Scanned(), X)
    count = lambda config, **kw: (
        peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0), **kw).parameters
    )
    assert count(peft.LoRA(rank=2)) == 3 * 2 * 2 * (4 + 6)
    assert count(peft.LoRA(rank=2, layers=[1])) == 2 * 2 * (4 + 6)
    assert count(peft.MoRe(blocks=2, block_rank=2)) == 3 * 2 * 2 * (4 + 6)
    assert count(peft.LoRA(rank=2, targets="up", train="head/*")) == 3 * 2 * (4 + 6) + 4 * 2 + 2
    assert count(peft.FullFineTuning()) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count(peft.FullFineTuning(train="bias")) == 3 * (6 + 4) + 2
    assert count(peft.LinearProbe(), head={"kernel": np.ones((4, 7))}) == 0
    assert count(peft.LinearProbe(train="head/*")) == 4 * 2 + 2


def test_blocks_that_do_not_divide_the_rank_are_told_once_with_their_density(llama):
    message = r"4 blocks do not divide the block rank 1: a share of 75% .*0\.25"
    with pytest.warns(peft.DensityWarning, match=message) as told:
        abstract(llama, peft.MoRe(blocks=4, block_rank=1))
    assert len(told) == 1


@pytest.mark.parametrize("rank", [4, 16])
def test_published_sizes_come_out_under_eval_shape(rank):
    """Query, key and value of Llama 7B: r (n + m) numbers each, whatever the number of blocks."""
    config = DecoderConfig(32_000, 4096, 32, 32, 11_008, 2048, rotary=Rotary(128))
    params = jax.eval_shape(Decoder(config).init, jax.random.key(0), np.zeros((1, 2), np.int32))["params"]
    model = Pretrained(params, Decoder(config), config)
    more = peft.MoRe(blocks=1, block_rank=rank, targets=["query", "key", "value"])
    assert abstract(model, more).parameters == 786_432 * rank
