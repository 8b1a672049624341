"""Chat templates: messages to the prompt that a model was tuned on, by the Jinja template that its files carry."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.sandbox

from zsml_jax.models.tokenizer import Tokenizer

#: A turn of a conversation: ``{"role": "user", "content": "..."}``.
Message = Mapping[str, Any]


def render_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any
) -> str:
    """Returns the prompt of a conversation, special tokens written out.

    Encode it with :func:`encode_chat`, as the tokenizer would add its special tokens a second time.

    Args:
      tokenizer: a tokenizer with a chat template, from the model's folder or its GGUF file.
      messages: the turns so far, the oldest first.
      add_generation_prompt: whether the prompt ends where the assistant's next turn begins.
      **variables: what else the template asks for, such as ``tools``.

    Raises:
      ValueError: if there is no template, no message, or the template refuses the messages.
    """
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer's files carry no chat template; write the prompt yourself")
    if not messages or any("role" not in message or "content" not in message for message in messages):
        raise ValueError('messages must be at least one {"role": ..., "content": ...}')
    # The template comes with the weights, so it runs in the sandbox, which keeps it from the interpreter.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    functions: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _now}
    environment.globals.update(functions)
    try:
        return environment.from_string(tokenizer.chat_template).render(
            messages=list(messages), add_generation_prompt=add_generation_prompt, **tokenizer.special, **variables
        )
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template refused the messages: {error}") from error


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any
) -> list[int]:
    """Returns the token ids of a conversation's prompt; arguments and errors as :func:`render_chat`."""
    prompt = render_chat(tokenizer, messages, add_generation_prompt=add_generation_prompt, **variables)
    return tokenizer.encode_plain(prompt)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
