from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers

from tests.models.tiny_decoders import VOCAB, padded, rows, save_tiny_decoder
from zsml_jax import models
from zsml_jax.models import generate as generation
from zsml_jax.models.decoder import Decoder
from zsml_jax.models.decoder_config import DecoderConfig
from zsml_jax.models.generate import generate
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.sampling import Sampling
from zsml_jax.models.sentence import SentenceConfig
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.models.tokenizer_files import TokenizerFiles
from zsml_jax.train import sharding, sharding_tables

PROMPTS = rows()
N = 12


def tokenizer():
    """One letter a token: id i is the letter i of the alphabet."""
    words = {chr(ord("A") + i): i for i in range(VOCAB)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="A"))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return Tokenizer(TokenizerFiles(tokenizer, 0, None, {}, None), max_length=64)


@pytest.fixture(scope="module")
def model():
    """A random Llama, whose greedy text does not settle on one token."""
    config = DecoderConfig(
        VOCAB, width=16, num_layers=2, num_heads=4, num_kv_heads=2, mlp_width=24, max_positions=64, rotary=Rotary(4)
    )
    module = Decoder(config)
    params = module.init(jax.random.key(1), np.zeros((1, 2), np.int32))["params"]
    params = jax.tree.map(lambda x: 3 * x if x.ndim > 2 else x, params)
    return Pretrained(params, module, config, tokenizer(), SentenceConfig())


@pytest.fixture(scope="module")
def greedy(model):
    return uncached(model, PROMPTS)


def uncached(model, prompts):
    """The greedy text of each prompt, by the whole model on the whole text for each token."""
    apply = jax.jit(model.apply)
    texts = []
    for prompt in prompts:
        row = np.zeros(len(prompt) + N, np.int32)
        row[: len(prompt)] = prompt
        for end in range(len(prompt), len(row)):
            row[end] = apply(model.params, row[None])[0, end - 1].argmax()
        texts.append(row[len(prompt) :])
    return np.array(texts)


@pytest.mark.parametrize("side", ["left", "right"])
def test_greedy_text_is_that_of_the_model_without_a_cache(model, greedy, side):
    ids, mask = padded(PROMPTS, side)
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N)
    np.testing.assert_array_equal(generation.tokens, greedy)
    assert (generation.lengths == N).all()
    assert not generation.finished.any()


def test_a_state_space_model_generates_alike():
    mamba = models.load(Path(__file__).parent.parent / "golden" / "mamba")
    ids, mask = padded(PROMPTS, "left")
    generation = generate(mamba, ids, attention_mask=mask, max_new_tokens=N, stop_tokens=[])
    np.testing.assert_array_equal(generation.tokens, uncached(mamba, PROMPTS))


@pytest.mark.parametrize("places", ["data:2,model:2", pytest.param("data:4,model:1", marks=pytest.mark.slow)])
def test_a_model_divided_over_devices_writes_the_same_text(model, greedy, places):
    mesh = sharding.make_mesh(places)
    divided = sharding.partition(model.params, mesh, sharding_tables.DECODER)
    params = jax.device_put(model.params, divided)
    assert not params["layers"]["mlp"]["up"]["kernel"].is_fully_replicated
    ids, mask = padded(PROMPTS, "left")
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N, params=params)
    np.testing.assert_array_equal(generation.tokens, greedy)


@pytest.mark.slow
def test_log_probs_are_those_of_scoring_the_text(model, greedy):
    ids, mask = padded(PROMPTS, "left")
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N)
    for prompt, text, log_probs in zip(PROMPTS, greedy, generation.log_probs, strict=True):
        whole = np.concatenate([prompt, text])
        scored = jax.nn.log_softmax(model.apply(model.params, whole[None]))[0]
        expected = scored[np.arange(len(prompt) - 1, len(whole) - 1), text]
        np.testing.assert_allclose(log_probs, expected, atol=1e-4)


def test_rows_end_with_their_stop_token_and_the_rest_is_padding(model, greedy):
    ids, mask = padded(PROMPTS, "left")
    stop = int(greedy[0, 3])
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N, stop_tokens=[stop])
    for text, row, length, finished in zip(greedy, *generation[:2], generation.finished, strict=True):
        hits = np.flatnonzero(text == stop)
        end = hits[0] + 1 if hits.size else N
        assert (length, finished) == (end, hits.size > 0)
        np.testing.assert_array_equal(row, np.where(np.arange(N) < end, text, 0))
    assert generation.lengths[0] <= 4


def test_a_row_ends_with_the_token_that_completes_a_stop_string(model, greedy):
    ids, mask = padded(PROMPTS, "left")
    text = model.tokenizer.decode(greedy[1])
    string = text[4:7]
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N, stop_strings=[string])
    end = text.index(string) + len(string)
    assert generation.lengths[1] == end
    assert generation.finished[1]
    assert generation.texts(model.tokenizer)[1] == text[:end]


@pytest.mark.slow
def test_a_row_depends_on_its_own_key_and_prompt_only(model, key):
    ids, mask = padded(PROMPTS, "left")
    keys = jax.random.split(key, len(PROMPTS))
    sampling = Sampling(temperature=1.5, top_p=0.95)
    settings = {"max_new_tokens": N, "sampling": sampling}
    together = generate(model, ids, attention_mask=mask, key=keys, **settings).tokens
    alone = [generate(model, row[None], key=keys[i : i + 1], **settings).tokens[0] for i, row in enumerate(PROMPTS)]
    np.testing.assert_array_equal(together, alone)
    other = generate(model, ids, attention_mask=mask, key=jax.random.key(5), **settings).tokens
    assert (other != together).any()


def test_a_listener_hears_every_token_once(model, greedy):
    ids, mask = padded(PROMPTS, "left")
    heard = [[] for _ in PROMPTS]

    def listener(tokens, counts):
        for row, (new, count) in enumerate(zip(tokens, counts, strict=True)):
            heard[row] += new[:count].tolist()

    stop = int(greedy[0, 5])
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=N, stop_tokens=[stop], listener=listener)
    assert heard == [row[:n].tolist() for row, n in zip(generation.tokens, generation.lengths, strict=True)]


def test_a_large_penalty_forbids_repetition(model):
    penalty = Sampling(repetition_penalty=1e6)
    row = PROMPTS[0]
    scores = model.apply(model.params, row[None])[0, -1]
    generation = generate(model, row[None], max_new_tokens=1, sampling=penalty)
    unseen = np.setdiff1d(np.arange(VOCAB), row)
    positive = unseen[np.asarray(scores)[unseen] > 0]
    assert generation.tokens[0, 0] == positive[np.asarray(scores)[positive].argmax()]


def test_another_model_over_other_parameters_writes_and_new_arrays_compile_nothing(model, greedy):
    def shifted(params, tokens, is_token, **cache):
        output = model.module.apply({"params": params["model"]}, tokens, is_token, **cache)
        return output._replace(logits=output.logits + params["bias"])

    row = PROMPTS[0][None]
    forced = lambda bias: generate(
        model, row, max_new_tokens=N, params={"model": model.params, "bias": bias}, apply_fn=shifted
    )
    np.testing.assert_array_equal(forced(np.zeros(VOCAB, np.float32)).tokens[0], greedy[0])
    before = generation._decode._cache_size()
    assert (forced(1e6 * np.eye(VOCAB, dtype=np.float32)[7]).tokens == 7).all()
    assert generation._decode._cache_size() == before


def test_prompts_of_one_bucket_share_their_programs(model):
    sizes = lambda: (generation._prefill._cache_size(), generation._decode._cache_size())
    generate(model, np.ones((2, 3), np.int32), max_new_tokens=5)
    before = sizes()
    generate(model, np.ones((2, 15), np.int32), max_new_tokens=9)
    assert sizes() == before


@pytest.mark.slow
def test_learned_positions_limit_the_text_and_not_the_padding(key):
    config = DecoderConfig(VOCAB, width=8, num_layers=1, num_heads=2, mlp_width=8, max_positions=20)
    module = Decoder(config)
    params = module.init(key, np.zeros((1, 2), np.int32))["params"]
    model = Pretrained(params, module, config, None, SentenceConfig())
    assert generate(model, np.ones((1, 17), np.int32), max_new_tokens=3).lengths == 3
    with pytest.raises(ValueError, match=r"at most 20 tokens, .* got 17 \+ 4"):
        generate(model, np.ones((1, 17), np.int32), max_new_tokens=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.full((1, 3), VOCAB)}, f"tokens must lie in 0 ... {VOCAB - 1}"),
        ({"tokens": np.zeros((1, 0), np.int32)}, "tokens must be integers"),
        ({"attention_mask": np.zeros((1, 3), np.int32)}, "row 0 has none"),
        ({"attention_mask": np.ones((1, 4), np.int32)}, "attention_mask must have the shape"),
        ({"max_new_tokens": 0}, "max_new_tokens must be an integer of at least 1, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer of at least 1, got 2.5"),
        ({"sampling": Sampling(temperature=1.0)}, "key must be given"),
        ({"stop_tokens": [VOCAB]}, "stop_tokens must be ids in"),
        ({"stop_strings": "ab"}, "stop_strings must be a sequence of non-empty strings"),
        ({"sampling": Sampling(temperature=1.0), "key": jax.random.split(jax.random.key(0), 3)}, "key must be one key"),
    ],
)
def test_unsound_arguments_are_refused_by_name(model, change, message, unchecked_types):
    arguments = {"tokens": np.ones((1, 3), np.int32), "max_new_tokens": 2} | change
    with pytest.raises(ValueError, match=message):
        generate(model, arguments.pop("tokens"), **arguments)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen3"])
def test_greedy_text_is_that_of_transformers(tmp_path, model_type):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    peer = save_tiny_decoder(tmp_path, model_type)
    model = models.load(tmp_path)
    ids, mask = padded(PROMPTS, "left")
    expected = peer.generate(
        input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long(), max_new_tokens=10,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    generation = generate(model, ids, attention_mask=mask, max_new_tokens=10, stop_tokens=[])
    np.testing.assert_array_equal(generation.tokens, expected[:, ids.shape[1] :].numpy())
