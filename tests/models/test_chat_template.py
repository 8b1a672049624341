import pytest
import tokenizers

from zsml_jax.models.chat_template import encode_chat, render_chat
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.models.tokenizer_files import TokenizerFiles

TEMPLATE = """\
{%- for message in messages %}
    {%- if message.role == "tool" %}{{ raise_exception("no tools here") }}{% endif %}
<{{ message.role }}>{{ message.content | trim }}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""
MESSAGES = [{"role": "user", "content": " hello "}]


def tokenizer(template):
    words = {word: i for i, word in enumerate(["hello", "</s>", "<user>", "<assistant>"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="hello"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.add_special_tokens(["</s>", "<user>", "<assistant>"])
    return Tokenizer(TokenizerFiles(inner, 0, None, {"eos_token": "</s>"}, template), max_length=4)


def test_messages_become_the_prompt_that_the_template_says():
    assert render_chat(tokenizer(TEMPLATE), MESSAGES) == "<user>hello</s>\n<assistant>"
    assert render_chat(tokenizer(TEMPLATE), MESSAGES, add_generation_prompt=False) == "<user>hello</s>\n"


def test_a_prompt_is_encoded_whole_and_without_further_special_tokens():
    assert encode_chat(tokenizer(TEMPLATE), MESSAGES * 3) == [2, 0, 1] * 3 + [3]


def test_a_template_cannot_reach_the_interpreter():
    with pytest.raises(ValueError, match="the chat template refused the messages"):
        render_chat(tokenizer("{{ messages.__class__.__mro__ }}"), MESSAGES)


@pytest.mark.parametrize(
    ("template", "messages", "error"),
    [
        (None, MESSAGES, "carry no chat template"),
        (TEMPLATE, [], "messages must be at least one"),
        (TEMPLATE, [{"content": "x"}], "messages must be at least one"),
        (TEMPLATE, [{"role": "tool", "content": "x"}], "refused the messages: no tools here"),
        ("{% if %}", MESSAGES, "refused the messages"),
    ],
)
def test_what_cannot_be_rendered_is_refused(template, messages, error):
    with pytest.raises(ValueError, match=error):
        render_chat(tokenizer(template), messages)
