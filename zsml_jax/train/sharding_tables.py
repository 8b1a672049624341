"""How the parameters of families of models lie on a mesh of ``data`` and ``model``, as rules of :mod:`.sharding`.

Example::

    mesh = make_mesh("data:-1,model:8")
    fit(loss_fn, pretrained.params, data, mesh=mesh, rules=rules_for(pretrained.model_type), ...)

Heads and hidden units are divided over ``model`` (Shoeybi et al., 2019, section 3): what opens a block by its columns
and what closes it by its rows, so that a block needs one sum over devices. The other axis of each matrix is divided
over ``data`` (Rajbhandari et al., 2020, stage 3). On a mesh ``"data:-1,model:1"`` a table is fully sharded data
parallelism, and on ``"data:1,model:-1"`` tensor parallelism. Where layers are stacked, the leading axis is theirs.

Every parameter has a rule; norms, and biases that are added after the sum over devices, are copied on purpose. Most
sizes must be divisible, and :func:`.sharding.partition` names those that are not. The words of a vocabulary need not
be: GPT-2 has 50,257 of them. Where ``model`` does not divide them, its devices hold copies.

The arrays of a quantised kernel (:mod:`zsml_jax.models.quantized`) lie as the kernel does: codes along both axes, and
where an axis is not divisible, as halves of bytes and groups of inputs may not be, along the other alone.

Programs stay correct, and get slower, where a device's part of a matrix is not made of whole heads: with fewer heads of
keys than ``model`` has devices, or in Mamba's projection of both the values and their gate. XLA then moves activations
between the devices of ``model``.
"""

from typing import Final

from jax.sharding import PartitionSpec

from zsml_jax.data.nearest_name import nearest
from zsml_jax.train.sharding import FirstFit, Fsdp, ShardingRule

_P = PartitionSpec
_COPY = _P()
_WORDS = FirstFit((_P("model", "data"), _P(None, "data")))
_WORDS_HEAD = FirstFit((_P("data", "model"), _P("data")))
_WORDS_BIAS = FirstFit((_P("model"), _COPY))
_NORMS: ShardingRule = (".*norm/(scale|bias)", _COPY)


def _blocks(where: str, *stacked: None, attention: str = "attention", biases: bool = True) -> tuple[ShardingRule, ...]:
    """Attention and MLP of layers at the path ``where``; ``stacked`` holds a None for each leading axis of layers."""
    columns, rows = _P(*stacked, "data", "model"), _P(*stacked, "model", "data")
    kernels = (
        (f"{where}/{attention}/(query|key|value)/kernel", columns),
        (f"{where}/{attention}/out/kernel", rows),
        (f"{where}/mlp/(up|gate)/kernel", columns),
        (f"{where}/mlp/down/kernel", rows),
    )
    if not biases:
        return kernels
    return (
        *kernels,
        (f"{where}/({attention}/(query|key|value)|mlp/(up|gate))/bias", _P(*stacked, "model")),
        (f"{where}/({attention}/out|mlp/down)/bias", _COPY),
    )


def _with_quantised(rules: tuple[ShardingRule, ...]) -> tuple[ShardingRule, ...]:
    """The rules, with those of the arrays of quantised kernels behind those of the kernels."""
    extended: list[ShardingRule] = []
    for pattern, rule in rules:
        extended.append((pattern, rule))
        if pattern.endswith(("kernel", "kernel)")):
            specs = [spec for spec in (rule.specs if isinstance(rule, FirstFit) else (rule,)) if isinstance(spec, _P)]
            by_outputs = [_P(*spec[:-2], None, spec[-1]) for spec in specs if len(spec) >= 2]
            by_inputs = [_P(*spec[:-1]) for spec in specs if len(spec) >= 2]
            fitting = FirstFit((*specs, *by_outputs, *by_inputs, _COPY))
            extended.append((f"({pattern})/(codes|scale|zero)", fitting))
            extended.append((f"({pattern})/input_scale", FirstFit((*by_inputs, _COPY))))
    return tuple(extended)


#: GPT-2, GPT-Neo, GPT-NeoX and the Llama family. Files that fuse queries, keys and values are taken apart when loaded.
DECODER: Final[tuple[ShardingRule, ...]] = _with_quantised(
    (
        ("embeddings/word/embedding", _WORDS),
        ("embeddings/position/embedding", _P(None, "data")),
        *_blocks("layers", None),
        ("head/kernel", _WORDS_HEAD),
        ("head/bias", _WORDS_BIAS),
        _NORMS,
    )
)
#: Mamba. The channels of the convolution and the scan are divided over ``model``; the states' numbers never are.
MAMBA: Final[tuple[ShardingRule, ...]] = _with_quantised(
    (
        ("embeddings/word/embedding", _WORDS),
        ("layers/mixer/in_proj/kernel", _P(None, "data", "model")),
        ("layers/mixer/(in_proj|dt_proj)/bias", _P(None, "model")),
        ("layers/mixer/(conv_bias|D)", _P(None, "model")),
        # The channels over both axes, since the other sizes are small numbers that a large mesh does not divide.
        ("layers/mixer/(A_log|x_proj/kernel)", FirstFit((_P(None, ("model", "data")), _P(None, "model")))),
        (
            "layers/mixer/(conv_kernel|dt_proj/kernel)",
            FirstFit((_P(None, None, ("model", "data")), _P(None, None, "model"))),
        ),
        ("layers/mixer/out_proj/kernel", _P(None, "model", "data")),
        ("layers/mixer/out_proj/bias", _COPY),
        ("head/kernel", _WORDS_HEAD),
        _NORMS,
    )
)
#: BERT, RoBERTa, DistilBERT and ALBERT, whose layers are not stacked.
BERT: Final[tuple[ShardingRule, ...]] = _with_quantised(
    (
        ("embeddings/word/embedding", _WORDS),
        ("embeddings/(position|token_type)/embedding", _P(None, "data")),
        ("embeddings/widen/kernel", _P(None, "data")),
        *_blocks(r"layer_\d+"),
        ("(pooler|head/dense)/kernel", _P("data")),
        ("(embeddings/widen|pooler|head/dense)/bias", _COPY),
        ("head/bias", _WORDS_BIAS),
        _NORMS,
    )
)
#: T5. The bias of each head and bucket of distances is a few hundred numbers.
T5: Final[tuple[ShardingRule, ...]] = _with_quantised(
    (
        ("word/embedding", _WORDS),
        ("(encoder|decoder)/relative/bucket/embedding", _COPY),
        *_blocks("(encoder|decoder)/layers", None, attention="(attention|cross)", biases=False),
        ("head/kernel", _WORDS_HEAD),
        _NORMS,
    )
)
#: CLIP, both towers.
CLIP: Final[tuple[ShardingRule, ...]] = _with_quantised(
    (
        ("text/word/embedding", _WORDS),
        ("(text|image)/position/embedding", _P(None, "data")),
        ("image/patch/kernel", _P(None, None, None, "data")),
        ("(text|image)/projection/kernel", _P("data")),
        *_blocks("(text|image)/layers", None),
        ("image/class|logit_scale", _COPY),
        _NORMS,
    )
)
#: The small image nets. What opens a residual block is divided by output channels, what closes it by input channels;
#: the rest is fully sharded data parallelism. Small arrays are copied.
VISION: Final[tuple[ShardingRule, ...]] = (
    (r"(stage_\d+_block_\d+/conv_0|block_\d+/expand)/kernel", FirstFit((_P(None, None, "data", "model"), _COPY))),
    (r"(stage_\d+_block_\d+/conv_1|block_\d+/project)/kernel", FirstFit((_P(None, None, "model", "data"), _COPY))),
    (r"block_\d+/depthwise/kernel", FirstFit((_P(None, None, None, "model"), _COPY))),
    (r".*(stem|shortcut|head_conv|conv_\d+|hidden_\d+|dense_\d+|head)/kernel", Fsdp("data")),
    (r".*(conv_\d+|hidden_\d+|dense_\d+|head)/bias", _COPY),
    (r".*norm(_\d+)?/(scale|bias)", _COPY),
)

#: The tables by the ``model_type`` of config files, for :func:`rules_for`.
MODEL_TYPES: Final[dict[str, tuple[ShardingRule, ...]]] = {
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"), DECODER),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "distilbert", "albert"), BERT),
    "mamba": MAMBA,
    "t5": T5,
    "clip": CLIP,
}


def rules_for(model_type: str) -> tuple[ShardingRule, ...]:
    """Returns the table of a family.

    Args:
      model_type: as ``config.json`` and ``Pretrained.model_type`` have it.

    Raises:
      ValueError: if there is no such type.

    >>> rules_for("llama") is rules_for("gpt2") is DECODER
    True
    """
    if model_type not in MODEL_TYPES:
        close = nearest(model_type, MODEL_TYPES, "model types")
        raise ValueError(f"there is no sharding table for the model type {model_type!r}. {close}")
    return MODEL_TYPES[model_type]
