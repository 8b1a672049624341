import json
import subprocess
import sys

import numpy as np
import pytest

from zsml_jax import data
from zsml_jax.data import tfds_source

ONE = {"process_index": 0, "process_count": 1}


def batches(source=None, **options):
    source = range(23) if source is None else source
    return data.batches(list(source) if isinstance(source, range) else source, **({"batch_size": 4} | ONE | options))


def take(iterator, count):
    return [next(iterator).tolist() for _ in range(count)]


def test_without_shuffling_batches_are_the_runs_of_the_source_epoch_after_epoch():
    epoch = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [b.tolist() for b in batches(range(14), shuffle=False, epochs=2)] == epoch * 2
    rest = batches(range(14), shuffle=False, epochs=1, drop_remainder=False)
    assert [b.tolist() for b in rest] == [*epoch, [12, 13]]


def test_each_epoch_is_a_permutation_of_its_own_that_the_seed_decides():
    epochs = np.array(take(batches(range(24)), 12)).reshape(2, 24)
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs.tolist())
    assert epochs[0].tolist() != epochs[1].tolist() != list(range(24))
    assert take(batches(range(24)), 12) == epochs.reshape(12, 4).tolist()
    assert take(batches(range(24), seed=1), 6) != epochs[0].reshape(6, 4).tolist()


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("position", [0, 1, 5, 14])
def test_a_run_resumed_from_json_sees_the_identical_batches(threads, position):
    whole = batches()
    take(whole, position)
    state = json.loads(json.dumps(whole.get_state()))
    rest = take(whole, 9)
    resumed = batches(threads=threads)
    resumed.set_state(state)
    assert take(resumed, 9) == rest
    whole.set_state(state)
    assert take(whole, 9) == rest


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_processes_together_see_the_same_batches_whatever_their_number(count):
    reference = batches()
    expected = take(reference, 13)
    parts = [batches(process_index=i, process_count=count) for i in range(count)]
    state = batches().get_state() | {"next_batch": 3}
    for part in parts:
        part.set_state(state)  # as if another number of processes had written it
    for batch in expected[3:]:
        pieces = [next(part) for part in parts]
        assert {len(piece) for piece in pieces} == {4 // count}
        assert sorted(np.concatenate(pieces).tolist()) == sorted(batch)


def test_a_length_counts_the_batches_of_all_epochs_and_the_iterator_ends_there():
    finite = batches(epochs=3)
    assert len(finite) == 15 == len(list(finite))
    assert next(finite, "end") == "end"
    resumed = batches(epochs=3)
    resumed.set_state(finite.get_state())
    assert list(resumed) == []
    with pytest.raises(TypeError, match="no length"):
        len(batches())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed 0 and not 1"),
        ({"batch_size": 8}, "batch_size 4 and not 8"),
        ({"shuffle": False}, "shuffle True and not False"),
        ({"source": range(24)}, "num_examples 23 and not 24"),
    ],
)
def test_a_state_of_other_batches_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes).set_state(batches().get_state())


def test_a_state_may_go_on_for_more_epochs_but_must_have_a_position():
    state = batches(epochs=1).get_state()
    batches(epochs=2).set_state(state)
    for position in (-1, None, "3"):
        with pytest.raises(ValueError, match="non-negative next_batch"):
            batches().set_state(state | {"next_batch": position})


def test_a_data_set_is_read_as_dicts_of_inputs_labels_and_groups():
    texts = data.Dataset(
        "t", "all", ["a", "bb", "c", "d"], np.array([0, 1, 0, 1]), ("x", "y"), None, np.array([1, 1, 0, 0]), ("g", "h")
    )
    batch = next(batches(texts, batch_size=2, shuffle=False))
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input": ["a", "bb"],
        "label": [0, 1],
        "group": [1, 1],
    }
    assert set(next(batches(data.load("digits"), batch_size=2))) == {"input", "label"}


def test_a_transform_acts_on_examples_before_they_are_batched(tiny_tfds, tiny_images):
    images, labels = tiny_images
    source = tfds_source.open_source("tiny_digits", split="train", data_dir=tiny_tfds)

    def scaled(example):
        return {"image": example["image"].astype(np.float32) / 16, "label": example["label"]}

    batch = next(batches(source, batch_size=8, shuffle=False, transform=scaled))
    assert (
        np.array_equal(batch["image"], images[:8] / np.float32(16)) and batch["label"].tolist() == labels[:8].tolist()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 24}, "source must have at least one batch of 24, has 23 examples"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"threads": -1}, "threads must be at least 0"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"process_count": 3}, "batch_size must be a multiple of the 3 processes, got 4"),
        ({"process_index": 2, "process_count": 2}, r"process_index must lie in 0\.\.1, got 2"),
        ({"process_index": None}, "must be given together"),
        ({"process_count": 2, "drop_remainder": False}, "drop_remainder must be True"),
        ({"source": range(0), "drop_remainder": False, "epochs": 1}, "has 0 examples"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        batches(**changes)


def test_the_process_is_jaxs_own_by_default():
    alone = data.batches(list(range(8)), batch_size=4, shuffle=False)
    assert next(alone).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "split"), [("mnist", "train"), ("fashion_mnist", "train"), ("cifar10", "test[:8000]")]
)
def test_the_real_image_sets_give_shuffled_resumable_batches(shared_data, name, split):
    source = tfds_source.open_source(name, split=split, data_dir=shared_data / "tfds")

    def fresh():
        return batches(source, batch_size=64, seed=5, transform=lambda e: {"image": e["image"], "label": e["label"]})

    stream = fresh()
    first = next(stream)
    assert first["image"].shape == (64, *source[0]["image"].shape) and first["image"].dtype == np.uint8
    assert len(set(first["label"].tolist())) >= 8
    resumed = fresh()
    resumed.set_state(json.loads(json.dumps(stream.get_state())))
    expected, got = next(stream), next(resumed)
    assert np.array_equal(got["image"], expected["image"]) and np.array_equal(got["label"], expected["label"])
    stream.close()
    resumed.close()


@pytest.mark.slow
def test_workers_in_a_plain_script_give_the_same_batches_and_state(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "from zsml_jax import data\n"
        "if __name__ == '__main__':\n"
        "    plain = data.batches(list(range(23)), batch_size=4)\n"
        "    state = plain.get_state() | {'next_batch': 3}\n"
        "    plain.set_state(state)\n"
        "    worked = data.batches(list(range(23)), batch_size=4, workers=2)\n"
        "    worked.set_state(state)\n"
        "    pairs = [(next(plain).tolist(), next(worked).tolist()) for _ in range(12)]\n"
        "    worked.close()\n"
        "    assert all(a == b for a, b in pairs), pairs\n"
        "    assert plain.get_state() == worked.get_state()\n"
        "    print('same')\n"
    )
    result = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=300)
    assert result.stdout == "same\n", result.stderr
