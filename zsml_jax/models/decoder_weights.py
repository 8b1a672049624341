"""Checkpoints of GPT-2, GPT-Neo, GPT-NeoX and the Llama family, as their hub folders hold them."""

from zsml_jax.models import decoder_hub
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.families import Family
from zsml_jax.models.rules import (
    KEEP,
    THIRDS,
    Rule,
    Table,
    Transform,
    dense_rules,
    interleaved_thirds,
    left_out,
    norm_rules,
)

_QKV = ("query", "key", "value")


def _fused(source: str, kernel: Transform, bias: Transform) -> tuple[Rule, Rule]:
    """A tensor that holds queries, keys and values of a layer."""
    kernels, biases = (tuple(f"layers[{{i}}]/attention/{x}/{leaf}" for x in _QKV) for leaf in ("kernel", "bias"))
    return Rule(f"{source}.weight", kernels, kernel), Rule(f"{source}.bias", biases, bias)


def _head(config: DecoderConfig, source: str) -> tuple[Rule, ...]:
    # Files of tied models may hold the embedding a second time.
    return left_out(f"{source}.weight") if config.tied else dense_rules(source, "head")


def _gpt2(config: DecoderConfig) -> Table:
    # Its dense layers are kept as (in, out).
    rules = (
        Rule("transformer.wte.weight", "embeddings/word/embedding"),
        Rule("transformer.wpe.weight", "embeddings/position/embedding"),
        *norm_rules("transformer.h.{i}.ln_1", "layers[{i}]/attention_norm"),
        *_fused("transformer.h.{i}.attn.c_attn", THIRDS, THIRDS),
        *dense_rules("transformer.h.{i}.attn.c_proj", "layers[{i}]/attention/out", KEEP),
        *norm_rules("transformer.h.{i}.ln_2", "layers[{i}]/mlp_norm"),
        *dense_rules("transformer.h.{i}.mlp.c_fc", "layers[{i}]/mlp/up", KEEP),
        *dense_rules("transformer.h.{i}.mlp.c_proj", "layers[{i}]/mlp/down", KEEP),
        *norm_rules("transformer.ln_f", "norm"),
        *_head(config, "lm_head"),
        *left_out("transformer.h.{i}.attn.bias", "transformer.h.{i}.attn.masked_bias"),
    )
    return Table(rules, renames=((r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),))


def _gpt_neo(config: DecoderConfig) -> Table:
    attention = "transformer.h.{i}.attn.attention"
    rules = (
        Rule("transformer.wte.weight", "embeddings/word/embedding"),
        Rule("transformer.wpe.weight", "embeddings/position/embedding"),
        *norm_rules("transformer.h.{i}.ln_1", "layers[{i}]/attention_norm"),
        *dense_rules(f"{attention}.q_proj", "layers[{i}]/attention/query"),
        *dense_rules(f"{attention}.k_proj", "layers[{i}]/attention/key"),
        *dense_rules(f"{attention}.v_proj", "layers[{i}]/attention/value"),
        *dense_rules(f"{attention}.out_proj", "layers[{i}]/attention/out"),
        *norm_rules("transformer.h.{i}.ln_2", "layers[{i}]/mlp_norm"),
        *dense_rules("transformer.h.{i}.mlp.c_fc", "layers[{i}]/mlp/up"),
        *dense_rules("transformer.h.{i}.mlp.c_proj", "layers[{i}]/mlp/down"),
        *norm_rules("transformer.ln_f", "norm"),
        *_head(config, "lm_head"),
        *left_out(f"{attention}.bias", f"{attention}.masked_bias"),
    )
    return Table(rules, renames=((r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),))


def _gpt_neox(config: DecoderConfig) -> Table:
    by_head = interleaved_thirds(config.num_heads)
    layer = "gpt_neox.layers.{i}"
    rules = (
        Rule("gpt_neox.embed_in.weight", "embeddings/word/embedding"),
        *norm_rules(f"{layer}.input_layernorm", "layers[{i}]/attention_norm"),
        *_fused(f"{layer}.attention.query_key_value", by_head, by_head),
        *dense_rules(f"{layer}.attention.dense", "layers[{i}]/attention/out"),
        *norm_rules(f"{layer}.post_attention_layernorm", "layers[{i}]/mlp_norm"),
        *dense_rules(f"{layer}.mlp.dense_h_to_4h", "layers[{i}]/mlp/up"),
        *dense_rules(f"{layer}.mlp.dense_4h_to_h", "layers[{i}]/mlp/down"),
        *norm_rules("gpt_neox.final_layer_norm", "norm"),
        *_head(config, "embed_out"),
        *left_out(f"{layer}.attention.bias", f"{layer}.attention.masked_bias"),
        *left_out(f"{layer}.attention.rotary_emb.inv_freq", "gpt_neox.rotary_emb.inv_freq"),
    )
    return Table(rules, renames=((r"^(embed_in|layers|final_layer_norm)\.", r"gpt_neox.\1."),))


def _llama(config: DecoderConfig) -> Table:
    layer = "model.layers.{i}"
    rules = (
        Rule("model.embed_tokens.weight", "embeddings/word/embedding"),
        Rule(f"{layer}.input_layernorm.weight", "layers[{i}]/attention_norm/scale"),
        *dense_rules(f"{layer}.self_attn.q_proj", "layers[{i}]/attention/query"),
        *dense_rules(f"{layer}.self_attn.k_proj", "layers[{i}]/attention/key"),
        *dense_rules(f"{layer}.self_attn.v_proj", "layers[{i}]/attention/value"),
        *dense_rules(f"{layer}.self_attn.o_proj", "layers[{i}]/attention/out"),
        Rule(f"{layer}.self_attn.q_norm.weight", "layers[{i}]/attention/query_norm/scale"),
        Rule(f"{layer}.self_attn.k_norm.weight", "layers[{i}]/attention/key_norm/scale"),
        Rule(f"{layer}.post_attention_layernorm.weight", "layers[{i}]/mlp_norm/scale"),
        *dense_rules(f"{layer}.mlp.gate_proj", "layers[{i}]/mlp/gate"),
        *dense_rules(f"{layer}.mlp.up_proj", "layers[{i}]/mlp/up"),
        *dense_rules(f"{layer}.mlp.down_proj", "layers[{i}]/mlp/down"),
        Rule("model.norm.weight", "norm/scale"),
        *_head(config, "lm_head"),
        *left_out(f"{layer}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"),
    )
    return Table(rules, renames=((r"^(embed_tokens|layers|norm)\.", r"model.\1."),))


#: The families of this file by the ``model_type`` of their config files.
FAMILIES = {
    "gpt2": Family(Decoder, decoder_hub.read_gpt2, _gpt2, decoder_hub.write_gpt2, "GPT2LMHeadModel"),
    "gpt_neo": Family(Decoder, decoder_hub.read_gpt_neo, _gpt_neo, decoder_hub.write_gpt_neo, "GPTNeoForCausalLM"),
    "gpt_neox": Family(Decoder, decoder_hub.read_gpt_neox, _gpt_neox, decoder_hub.write_gpt_neox, "GPTNeoXForCausalLM"),
    "llama": Family(Decoder, decoder_hub.read_llama, _llama, decoder_hub.write_llama, "LlamaForCausalLM"),
    "mistral": Family(Decoder, decoder_hub.read_llama, _llama, decoder_hub.write_mistral, "MistralForCausalLM"),
    "qwen2": Family(Decoder, decoder_hub.read_llama, _llama, decoder_hub.write_qwen, "Qwen2ForCausalLM"),
    "qwen3": Family(Decoder, decoder_hub.read_llama, _llama, decoder_hub.write_qwen, "Qwen3ForCausalLM"),
}
