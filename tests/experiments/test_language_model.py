"""The language model experiment on a made-up language, and on real speeches where they are."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import corpus, language_model, runner
from zsml_jax import models
from zsml_jax.data import documents

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    *("--passage-chars", "300", "--held-out-every", "4", "--vocab-size", "270", "--width", "16", "--layers", "2"),
    *("--heads", "2", "--length", "24", "--batch-size", "8", "--steps", "6", "--warmup-steps", "2"),
    *(
        "--no-unwrap-lines",
        "--report-every",
        "3",
        "--checkpoint-every",
        "100",
        "--sample-tokens",
        "9",
        "--prompts",
        "",
        "the cat",
    ),
)


def write_texts(folder):
    """Sentences of a small grammar, in a plain and a packed file."""
    rng = np.random.default_rng(0)
    words = lambda *choices: choices[rng.integers(len(choices))]
    sentence = lambda: f"the {words('cat', 'dog', 'fox')} {words('saw', 'met')} a {words('bird', 'fish', 'bee')}.\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text("".join(sentence() for _ in range(120)))
    (folder / "b.txt.gz").write_bytes(gzip.compress("".join(sentence() for _ in range(60)).encode()))
    return folder


def run(tmp_path, preset, *arguments, small=SMALL):
    texts = write_texts(tmp_path / "texts")
    given = [preset, "--texts", str(texts), *small, *map(str, arguments), "--runs-dir", str(tmp_path / "runs")]
    return runner.main(language_model.run, "language_model", given)


def losses(folder):
    return {row["step"]: row["loss"] for row in folder.metrics() if "loss" in row}


def kept(folder):
    """Nats and tokens of the held-out passages, of which there are few enough for one part."""
    (part,) = folder.path.glob("results/held out*")
    return json.loads(part.read_text())["result"]


@pytest.fixture(scope="module", params=["gpt2_books", pytest.param("mamba_books", marks=pytest.mark.slow)])
def trained(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp(request.param)
    return tmp_path, request.param, run(tmp_path, request.param)


@pytest.mark.slow
def test_a_model_from_scratch_is_trained_saved_sampled_and_reported(trained):
    _, preset, folder = trained
    report = (folder.path / "report.md").read_text()
    assert ("GPT-2" if preset == "gpt2_books" else "Mamba") in report
    for said in ("bz2", "lzma, after the training text", "95 % bootstrap intervals", "tokens a second", "> the cat"):
        assert said in report
    assert (folder.path / "curve.png").stat().st_size > 1000
    assert (folder.path / "tokenizer" / "tokenizer.json").is_file()
    assert sorted(losses(folder)) == [3, 6]
    assert [row["held_out/bits_per_byte"] > 0 for row in folder.metrics() if "loss" not in row] == [True, True]


@pytest.mark.slow
def test_the_bits_of_the_report_are_those_of_the_saved_model(trained):
    _, _, folder = trained
    config = folder.config
    texts = corpus.load_corpus(config["texts"], config["passage_chars"], config["held_out_every"])
    model = models.load(folder.path / "model")
    # A plain pass over what fits one window must give the same numbers.
    ids = np.array([0, *model.tokenizer.encode_plain(texts.held_out[0])])[: config["length"] + 1]
    log_probs = jax.nn.log_softmax(model.apply(model.params, ids[None, :-1])[0])
    expected = -log_probs[np.arange(len(ids) - 1), ids[1:]].sum()
    scorer = language_model.Scorer(model, start_token=0, context=config["length"], stride=config["length"])
    start = model.tokenizer.decode(ids[1:])
    assert scorer.nats(model.params, [start])[0] == (pytest.approx(float(expected), rel=1e-5), len(ids) - 1)
    assert [tokens for _, tokens in kept(folder)] == [len(model.tokenizer.encode_plain(t)) for t in texts.held_out]


@pytest.mark.slow
def test_a_model_divided_over_devices_learns_the_same(trained):
    tmp_path, preset, folder = trained
    divided = run(tmp_path / "divided", preset, "--mesh", "data:2,model:2")
    assert losses(divided) == pytest.approx(losses(folder), rel=1e-5)
    np.testing.assert_allclose(kept(divided), kept(folder), rtol=1e-4)
    with pytest.raises(SystemExit, match="axes must"):
        run(tmp_path / "divided", preset, "--mesh", "sideways")


def test_a_finished_run_that_is_resumed_computes_nothing_again(trained, monkeypatch):
    tmp_path, preset, folder = trained
    before = (losses(folder), (folder.path / "metrics.jsonl").read_text())
    for name in ("generate", "train_byte_bpe"):
        monkeypatch.setattr(language_model, name, lambda *a, **k: pytest.fail("was done again"))
    again = run(tmp_path, preset, "--resume")
    assert again.path == folder.path
    assert (losses(again), (again.path / "metrics.jsonl").read_text()) == before


def test_an_evaluation_needs_no_training_and_agrees_with_the_run_that_trained(trained):
    tmp_path, _, folder = trained
    model, length = folder.path / "model", folder.config["length"]
    options = ("--passage-chars", "300", "--held-out-every", "4", "--context", length, "--stride", length // 2)
    evaluated = run(tmp_path, "smollm2_speeches", "--model", model, *options, small=())
    np.testing.assert_allclose(kept(evaluated), kept(folder), rtol=1e-5)
    report = (evaluated.path / "report.md").read_text()
    assert "Nothing is trained" in report and (evaluated.path / "passages.png").is_file()


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_loads_the_trained_model_and_its_tokenizer(trained):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    _, _, folder = trained
    ours = models.load(folder.path / "model")
    peer, told = transformers.AutoModelForCausalLM.from_pretrained(folder.path / "model", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = transformers.AutoTokenizer.from_pretrained(folder.path / "model")("the fox met a bee.")["input_ids"]
    assert ids == ours.tokenizer.encode_plain("the fox met a bee.")
    with torch.no_grad():
        logits = peer.eval()(input_ids=torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(ours.apply(ours.params, np.array([ids])), logits, atol=1e-5)


def test_baselines_are_what_their_definitions_say():
    texts = corpus.Corpus(["aab"] * 50, ["ab" * 40])
    bits = corpus.baselines(texts)
    a, b = (100 + 1) / (150 + 256), (50 + 1) / (150 + 256)
    assert bits["frequencies of bytes"] == pytest.approx(-(np.log2(a) + np.log2(b)) / 2)
    assert bits["lzma, after the training text"] < bits["lzma"]


def test_every_so_many_passages_are_held_out_and_nothing_is_lost(tmp_path):
    texts = write_texts(tmp_path)
    found = corpus.load_corpus([str(texts)], 300, 4)
    assert len(found.train) == 3 * len(found.held_out) + (len(found.train) + len(found.held_out)) % 4
    whole = [passage for text in documents.TextFiles(texts) for passage in documents.passages(text, 300)]
    assert found.held_out == whole[3::4]
    assert sorted(found.train + found.held_out) == sorted(whole)
    assert found.held_out_bytes == [len(text) for text in found.held_out]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out-every", "1"), "held_out_every must be at least 2, got 1"),
        (("--held-out-every", "9999"), "texts must hold at least 9999 passages"),
        (("--steps", "0"), "steps must be positive, got 0"),
        (("--seed", "-1"), "seed must be at least 0, got -1"),
        (("--heads", "3"), "heads must divide the width 16, got 3"),
        (("--vocab-size", "9"), "vocab_size must be more than 256"),
        (("--texts", "/nowhere"), "paths must exist; /nowhere does not"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "gpt2_books", *arguments)
    assert not list((tmp_path / "runs").rglob("config.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpt2_books",), "texts must name text files, folders of them or patterns"),
        (("smollm2_speeches", "--texts", str(ROOT / "README.md"), "--passage-chars", "99", "--model", "/x"), "'/x'"),
    ],
)
def test_a_run_without_texts_or_model_says_so(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        runner.main(language_model.run, "language_model", [*arguments, "--runs-dir", str(tmp_path / "runs")])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["gpt2_books", "mamba_books"])
def test_a_run_told_to_stop_half_way_goes_on_bit_for_bit(tmp_path, preset):
    write_texts(tmp_path / "texts")
    steps = 24
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled")}
    base = [sys.executable, "-m", "experiments.language_model", preset, "--texts", str(tmp_path / "texts"), *SMALL]
    base += ["--steps", str(steps), "--report-every", "1"]

    def start(runs, *more):
        command = [*base, "--runs-dir", str(tmp_path / runs), *more]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def folder_of(runs):
        (path,) = (tmp_path / runs / "language_model" / preset).iterdir()
        return path

    def read(runs):
        rows = map(json.loads, (folder_of(runs) / "metrics.jsonl").read_text().splitlines())
        return {row["step"]: row["loss"].hex() for row in rows if "loss" in row}

    whole = start("whole")
    assert whole.communicate(timeout=600)[1] is not None and whole.returncode == 0
    stopped = start("stopped")
    for line in stopped.stderr:
        if line.startswith(f"step {steps // 2}/"):
            stopped.send_signal(signal.SIGTERM)
            break
    told = stopped.communicate(timeout=600)[1]
    assert stopped.returncode == 143 and "--resume" in told
    assert max(read("stopped")) < steps
    resumed = start("stopped", "--resume")
    assert resumed.communicate(timeout=600)[1] is not None and resumed.returncode == 0
    assert read("stopped") == read("whole")
    weights = [(folder_of(runs) / "model" / "model.safetensors").read_bytes() for runs in ("whole", "stopped")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_command_evaluates_a_trained_model(trained):
    tmp_path, _, folder = trained
    command = [sys.executable, "-m", "experiments.language_model", "smollm2_speeches", "--context", "24"]
    command += ["--texts", str(tmp_path / "texts"), "--model", str(folder.path / "model"), "--passage-chars", "300"]
    command += ["--runs-dir", str(tmp_path / "by command")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "lzma, after the training text" in done.stdout


@pytest.mark.slow
def test_smollm2_predicts_speeches_better_than_compressors(tmp_path, shared_data):
    arguments = ("--texts", shared_data / "books" / "sotu", "--held-out-every", "150", "--context", "512")
    folder = runner.main(
        language_model.run,
        "language_model",
        ["smollm2_speeches", *map(str, arguments), "--stride", "256", "--runs-dir", str(tmp_path / "runs")],
    )
    nats = sum(nats for nats, _ in kept(folder))
    texts = corpus.load_corpus(folder.config["texts"], folder.config["passage_chars"], 150)
    bits = nats / np.log(2) / sum(texts.held_out_bytes)
    assert 0.5 < bits < 1.2 < min(folder.cached("baselines", lambda: pytest.fail("was not kept")).values())
