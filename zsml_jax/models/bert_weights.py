"""Config files and checkpoints of BERT, RoBERTa, DistilBERT and ALBERT, as their hub folders hold them."""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.families import Family
from zsml_jax.models.hub_fields import refuse
from zsml_jax.models.rules import TRANSPOSE, Rule, Table, dense_rules, left_out, norm_rules

_OLD_NORMS = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))

_EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding"),
    Rule("embeddings.position_embeddings.weight", "embeddings/position/embedding"),
    Rule("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding"),
    *norm_rules("embeddings.LayerNorm", "embeddings/norm"),
    *left_out("embeddings.position_ids", "embeddings.token_type_ids"),
)


def _masked_lm(dense: str, norm: str, bias: str, repeated: str) -> tuple[Rule, ...]:
    """The rules of a head for masked words; files may repeat what is tied in it."""
    return (
        *dense_rules(dense, "head/dense"),
        *norm_rules(norm, "head/norm"),
        Rule(bias, "head/bias"),
        *left_out(repeated),
    )


_BERT_HEAD = _masked_lm(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.bias",
    "cls.predictions.decoder.*",
)
_ROBERTA_HEAD = _masked_lm("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.*")
_DISTILBERT_HEAD = _masked_lm("vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight")
_ALBERT_HEAD = _masked_lm("predictions.dense", "predictions.LayerNorm", "predictions.bias", "predictions.decoder.*")

_BERT = Table(
    rules=(
        *_EMBEDDINGS,
        *dense_rules("encoder.layer.{i}.attention.self.query", "layer_{i}/attention/query"),
        *dense_rules("encoder.layer.{i}.attention.self.key", "layer_{i}/attention/key"),
        *dense_rules("encoder.layer.{i}.attention.self.value", "layer_{i}/attention/value"),
        *dense_rules("encoder.layer.{i}.attention.output.dense", "layer_{i}/attention/out"),
        *norm_rules("encoder.layer.{i}.attention.output.LayerNorm", "layer_{i}/attention_norm"),
        *dense_rules("encoder.layer.{i}.intermediate.dense", "layer_{i}/mlp/up"),
        *dense_rules("encoder.layer.{i}.output.dense", "layer_{i}/mlp/down"),
        *norm_rules("encoder.layer.{i}.output.LayerNorm", "layer_{i}/mlp_norm"),
        *dense_rules("pooler.dense", "pooler"),
        # Heads on top of the encoder: masked words and next sentences, classes, answer spans.
        *left_out("cls.*", "lm_head.*", "classifier.*", "qa_outputs.*"),
    ),
    renames=((r"^(bert|roberta)\.", ""), *_OLD_NORMS),
)

_ALBERT_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0"
_ALBERT = Table(
    rules=(
        *_EMBEDDINGS,
        *dense_rules("encoder.embedding_hidden_mapping_in", "embeddings/widen"),
        *dense_rules(f"{_ALBERT_LAYER}.attention.query", "layer_{i}/attention/query"),
        *dense_rules(f"{_ALBERT_LAYER}.attention.key", "layer_{i}/attention/key"),
        *dense_rules(f"{_ALBERT_LAYER}.attention.value", "layer_{i}/attention/value"),
        *dense_rules(f"{_ALBERT_LAYER}.attention.dense", "layer_{i}/attention/out"),
        *norm_rules(f"{_ALBERT_LAYER}.attention.LayerNorm", "layer_{i}/attention_norm"),
        *dense_rules(f"{_ALBERT_LAYER}.ffn", "layer_{i}/mlp/up"),
        *dense_rules(f"{_ALBERT_LAYER}.ffn_output", "layer_{i}/mlp/down"),
        *norm_rules(f"{_ALBERT_LAYER}.full_layer_layer_norm", "layer_{i}/mlp_norm"),
        *dense_rules("pooler", "pooler"),
        *left_out("predictions.*", "sop_classifier.*", "classifier.*", "qa_outputs.*"),
    ),
    renames=((r"^albert\.", ""),),
)

_DISTILBERT = Table(
    rules=(
        *_EMBEDDINGS,
        *dense_rules("transformer.layer.{i}.attention.q_lin", "layer_{i}/attention/query"),
        *dense_rules("transformer.layer.{i}.attention.k_lin", "layer_{i}/attention/key"),
        *dense_rules("transformer.layer.{i}.attention.v_lin", "layer_{i}/attention/value"),
        *dense_rules("transformer.layer.{i}.attention.out_lin", "layer_{i}/attention/out"),
        *norm_rules("transformer.layer.{i}.sa_layer_norm", "layer_{i}/attention_norm"),
        *dense_rules("transformer.layer.{i}.ffn.lin1", "layer_{i}/mlp/up"),
        *dense_rules("transformer.layer.{i}.ffn.lin2", "layer_{i}/mlp/down"),
        *norm_rules("transformer.layer.{i}.output_layer_norm", "layer_{i}/mlp_norm"),
        *left_out("vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
        *left_out("pre_classifier.*", "classifier.*", "qa_outputs.*"),
    ),
    renames=((r"^distilbert\.", ""), *_OLD_NORMS),
)


def _bert_config(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> BertConfig:
    refuse(hub, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    roberta = hub["model_type"] != "bert"
    return BertConfig(
        vocab_size=hub["vocab_size"],
        width=hub["hidden_size"],
        num_layers=hub["num_hidden_layers"],
        num_heads=hub["num_attention_heads"],
        mlp_width=hub["intermediate_size"],
        max_positions=hub["max_position_embeddings"],
        position_offset=hub.get("pad_token_id", 1) if roberta else None,
        type_vocab_size=hub.get("type_vocab_size", 2),
        activation=hub.get("hidden_act", "gelu"),
        norm_eps=hub.get("layer_norm_eps", 1e-12),
        # Masked-LM checkpoints come without a pooler, and the config file does not say so.
        pooler=_has(_BERT, names, "pooler.dense.weight"),
        **_head_fields(hub, _has(_BERT, names, (_ROBERTA_HEAD if roberta else _BERT_HEAD)[0].source)),
        head_activation="gelu" if roberta else hub.get("hidden_act", "gelu"),
        dtype=dtype,
    )


def _distilbert_config(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> BertConfig:
    return BertConfig(
        vocab_size=hub["vocab_size"],
        width=hub["dim"],
        num_layers=hub["n_layers"],
        num_heads=hub["n_heads"],
        mlp_width=hub["hidden_dim"],
        max_positions=hub["max_position_embeddings"],
        type_vocab_size=0,
        activation=hub.get("activation", "gelu"),
        pooler=False,
        **_head_fields(hub, _has(_DISTILBERT, names, _DISTILBERT_HEAD[0].source)),
        head_activation=hub.get("activation", "gelu"),
        dtype=dtype,
    )


def _albert_config(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> BertConfig:
    refuse(hub, position_embedding_type="absolute", inner_group_num=1)
    return BertConfig(
        vocab_size=hub["vocab_size"],
        width=hub["hidden_size"],
        num_layers=hub["num_hidden_layers"],
        num_heads=hub["num_attention_heads"],
        mlp_width=hub["intermediate_size"],
        max_positions=hub.get("max_position_embeddings", 512),
        type_vocab_size=hub.get("type_vocab_size", 2),
        activation=hub.get("hidden_act", "gelu_new"),
        norm_eps=hub.get("layer_norm_eps", 1e-12),
        pooler=_has(_ALBERT, names, "pooler.weight"),
        embedding_width=hub.get("embedding_size", 128),
        num_groups=hub.get("num_hidden_groups", 1),
        **_head_fields(hub, _has(_ALBERT, names, _ALBERT_HEAD[0].source)),
        head_activation=hub.get("hidden_act", "gelu_new"),
        dtype=dtype,
    )


def _write(config: BertConfig, name: str) -> dict[str, Any]:
    """The fields that all spell alike; ``name`` begins the names of the classes."""
    return {
        "architectures": [f"{name}ForMaskedLM" if config.masked_lm else f"{name}Model"],
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tied,
    }


def _write_bert(config: BertConfig, name: str) -> dict[str, Any]:
    return {
        **_write(config, name),
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        **({} if config.position_offset is None else {"pad_token_id": config.position_offset}),
    }


def _write_albert(config: BertConfig) -> dict[str, Any]:
    if config.embedding_width is None or config.num_groups is None:
        raise ValueError("config must have an embedding_width and num_groups to be of this model type")
    return {
        **_write_bert(config, "Albert"),
        "embedding_size": config.embedding_width,
        "num_hidden_groups": config.num_groups,
    }


def _write_distilbert(config: BertConfig) -> dict[str, Any]:
    return {
        **_write(config, "DistilBert"),
        "dim": config.width,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "hidden_dim": config.mlp_width,
        "activation": config.activation,
    }


#: The weight of a head that is not tied, which files of tied ones may repeat, by what the encoder's names begin with.
_DECODERS = {
    "bert": "cls.predictions.decoder.weight",
    "roberta": "lm_head.decoder.weight",
    "distilbert": "vocab_projector.weight",
    "albert": "predictions.decoder.weight",
}


def _with_head(table: Table, head: tuple[Rule, ...], prefix: str) -> Callable[[BertConfig], Table]:
    """The rules of a configuration: beside a head for masked words the encoder's names have a prefix."""
    encoder = r"(embeddings|encoder|transformer|pooler)\."
    prefixed = [
        dataclasses.replace(rule, source=f"{prefix}.{rule.source}") if re.match(encoder, rule.source) else rule
        for rule in table.rules
    ]
    renames = (*table.renames, (f"^{encoder}", rf"{prefix}.\1."))
    tied = Table((*head, *prefixed), renames)
    # The bias of a decoder that is not tied is its own too, and not that of the head.
    weight = _DECODERS[prefix]
    decoder = (
        Rule(weight, "head/decoder/kernel", TRANSPOSE),
        Rule(f"{weight.removesuffix('weight')}bias", "head/bias"),
    )
    others = tuple(Rule(rule.source, None) if rule.path == "head/bias" else rule for rule in head)
    untied = Table((*decoder, *others, *prefixed), renames)
    return lambda config: table if not config.masked_lm else tied if config.tied else untied


def _head_fields(hub: Mapping[str, Any], masked_lm: bool) -> dict[str, bool]:
    return {"masked_lm": masked_lm, "tied": not masked_lm or hub.get("tie_word_embeddings", True)}


def _has(table: Table, names: Iterable[str], canonical: str) -> bool:
    return any(table.canonical(name) == canonical for name in names)


#: The families of this file by the ``model_type`` of their config files.
FAMILIES = {
    "bert": Family(
        Bert,
        _bert_config,
        _with_head(_BERT, _BERT_HEAD, "bert"),
        functools.partial(_write_bert, name="Bert"),
    ),
    "roberta": Family(
        Bert,
        _bert_config,
        _with_head(_BERT, _ROBERTA_HEAD, "roberta"),
        functools.partial(_write_bert, name="Roberta"),
    ),
    "xlm-roberta": Family(
        Bert,
        _bert_config,
        _with_head(_BERT, _ROBERTA_HEAD, "roberta"),
        functools.partial(_write_bert, name="XLMRoberta"),
    ),
    "distilbert": Family(
        Bert,
        _distilbert_config,
        _with_head(_DISTILBERT, _DISTILBERT_HEAD, "distilbert"),
        _write_distilbert,
    ),
    "albert": Family(Bert, _albert_config, _with_head(_ALBERT, _ALBERT_HEAD, "albert"), _write_albert),
}
