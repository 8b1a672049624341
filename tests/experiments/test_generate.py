"""The chat on a tiny model that writes nonsense, as the terminal sees it."""

import io
import re
import sys

import jax
import numpy as np
import pytest

from experiments import generate as program
from zsml_jax import models
from zsml_jax.models.generate import generate
from zsml_jax.models.initialise import initialise
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.models.tokenizer_files import TokenizerFiles
from zsml_jax.models.tokenizer_training import train_byte_bpe

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a chat template."""
    learned = train_byte_bpe(["ein Äpfelchen für die Öhmchen 猫"] * 4, vocab_size=300)
    files = TokenizerFiles(learned._tokenizer, None, None, learned.special, TEMPLATE)
    hub = {**TINY, "model_type": "llama", "vocab_size": learned.vocab_size}
    fresh = initialise(hub, key=jax.random.key(3), tokenizer=Tokenizer(files, max_length=256))
    # Larger weights, so that the text depends on the prompt.
    params = jax.tree.map(lambda x: x * (20 if x.ndim > 1 else 1), fresh.params)
    path = tmp_path_factory.mktemp("models") / "tiny"
    models.save(fresh.replace(params=params), path)
    return path


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard input a terminal on which lines are typed; an exception is what a key does."""

    def typed(*lines):
        queue = iter(lines)

        def read(prompt):
            line = next(queue, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(sys, "stdin", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
        monkeypatch.setattr("builtins.input", read)

    return typed


def expected(folder, prompt, *, new=9, columns=128, **sampling):
    """What generate writes for a prompt, without streaming."""
    pretrained = models.load(folder)
    ids = pretrained.tokenizer.encode_plain(prompt)
    columns = max(columns, len(ids))
    tokens, mask = np.array([[0] * (columns - len(ids)) + ids]), np.arange(columns)[None] >= columns - len(ids)
    key = jax.random.fold_in(jax.random.key(0), 0)
    options = {"sampling": models.Sampling(**sampling), "key": key, "max_new_tokens": new}
    return generate(pretrained, tokens, attention_mask=mask, **options).texts(pretrained.tokenizer)[0]


def main(folder, *arguments, new=9):
    program.main(["--model", str(folder), "--max-new-tokens", str(new), *arguments])


@pytest.mark.slow
def test_one_prompt_is_answered_through_the_template_and_its_speed_told(folder, capsys):
    main(folder, "--prompt", "für", "--system", "Ö", "--temperature", "0", new=16)
    out, err = capsys.readouterr()
    assert out == expected(folder, "<system>Ö\n<user>für\n<assistant>", new=16, columns=0) + "\n"
    assert re.search(r"\[16 tokens, [\d.]+ tokens/s after the first, which took [\d.]+ s, compiling included\]", err)


def test_settings_of_the_draw_arrive(folder, capsys):
    settings = {"temperature": 2.0, "top_p": 0.8, "top_k": 40, "min_p": 0.01, "repetition_penalty": 1.3}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    main(folder, "--prompt", "ein", "--raw", *options)
    assert capsys.readouterr().out == "ein" + expected(folder, "ein", **settings) + "\n"


def test_a_pipe_is_a_prompt(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("zwei\nZeilen\n"))
    main(folder, "--raw", "--temperature", "0")
    assert capsys.readouterr().out == "zwei\nZeilen" + expected(folder, "zwei\nZeilen") + "\n"


def test_a_chat_remembers_its_turns_and_compiles_once(folder, capsys, terminal):
    terminal("ein", "", KeyboardInterrupt(), "für")
    main(folder, "--temperature", "0", new=4)
    out, err = capsys.readouterr()
    first = expected(folder, "<user>ein\n<assistant>", new=4)
    second = expected(folder, f"<user>ein\n<assistant>{first}\n<user>für\n<assistant>", new=4)
    assert out == f"{first}\n{second}\n\n"
    assert err.count("compiling included; prompts of up to 128 tokens compile no more") == 1
    assert "Ctrl-D ends the chat." in err


def test_ctrl_c_stops_the_answer_and_not_the_chat(folder, capsys, terminal, monkeypatch):
    hear = program._Stream.hear
    heard = []

    def interrupted(self, ids):
        hear(self, ids)
        heard.append(len(ids))
        if len(heard) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(program._Stream, "hear", interrupted)
    terminal("ein", "für")
    main(folder, "--temperature", "0", new=16)
    out, err = capsys.readouterr()
    whole = expected(folder, "<user>ein\n<assistant>", new=9)
    second = expected(folder, f"<user>ein\n<assistant>{whole}\n<user>für\n<assistant>", new=16)
    assert out == f"{whole}\n{second}\n\n"
    assert "[stopped after 9 tokens" in err and "[16 tokens" in err


def test_an_interrupted_prompt_ends_with_the_status_of_ctrl_c(folder, capsys, monkeypatch):
    def interrupt(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "generate", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(folder, "--prompt", "ein")
    assert ended.value.code == 130


def test_the_oldest_turns_are_forgotten_when_the_conversation_is_too_long(folder, capsys, terminal):
    word = "ein Äpfelchen " * 8
    terminal(*[word + str(i) for i in range(6)], "猫" * 300, "für")
    main(folder, "--temperature", "0", "--system", "die", new=8)
    err = capsys.readouterr().err
    assert "the oldest turn is forgotten" in err
    assert re.search(r"error: the model reads and writes at most 256 tokens, and \d+ \+ 8 \(max_new_tokens\)", err)
    assert err.count(" tokens, ") == 8 and "Traceback" not in err


def test_characters_are_streamed_whole():
    tokenizer = train_byte_bpe(["a"], vocab_size=257)
    out = io.StringIO()
    stream = program._Stream(tokenizer, out)
    seen = []
    for token in tokenizer.encode_plain("ä猫b"):
        stream.hear(np.array([token]))
        seen.append(out.getvalue())
    assert seen == ["", "ä", "ä", "ä", "ä猫", "ä猫b"]
    stream.hear(np.array(tokenizer.encode_plain("ö")[:1]))
    stream.end()
    assert out.getvalue() == "ä猫b\N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "/no/model", "--prompt", "x"), "error: path_or_asset must be a folder.*'/no/model'"),
        (("--temperature", "-1", "--prompt", "x"), "error: temperature must not be negative, got -1.0"),
        (("--top-p", "2", "--prompt", "x"), r"error: top_p must be in \(0, 1\], got 2.0"),
        (("--max-new-tokens", "0", "--prompt", "x"), "error: max_new_tokens must be at least 1, got 0"),
        (("--prompt", " "), "error: there is no prompt"),
    ],
)
def test_what_cannot_be_written_with_is_told_in_one_line(arguments, message):
    with pytest.raises(SystemExit, match=message):
        program.main(list(arguments))


def test_models_without_a_template_or_room_are_refused(folder, tmp_path, capsys):
    pretrained = models.load(folder)
    pretrained.tokenizer.chat_template = None
    options = program.Options(model="tiny")
    with pytest.raises(ValueError, match="tiny has no chat template; let it go on with a text by --raw"):
        program.Session(pretrained, options, program.sampling_of(options))
    with pytest.raises(SystemExit, match=r"at most 256 tokens, and 1 \+ 999 \(max_new_tokens\)"):
        main(folder, "--raw", "--prompt", "", new=999)
