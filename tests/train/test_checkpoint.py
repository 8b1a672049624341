"""Round trips are compared leaf by leaf with what was saved; kills are real kills of a subprocess."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from zsml_jax.train import Checkpointer, checkpoint


class Fitted(NamedTuple):
    dual: Any
    converged: Any


@flax.struct.dataclass
class Head:
    vectors: Any
    name: str = flax.struct.field(pytree_node=False, default="head")


@dataclasses.dataclass(frozen=True)
class Config:
    epsilon: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


def fitted_tree():
    params = {"dense": {"kernel": jnp.arange(6.0).reshape(3, 2), "bias": jnp.zeros(2, jnp.bfloat16)}}
    return {
        "fitted": Fitted(jnp.linspace(0, 1, 5), np.array(True)),
        "head": Head(np.arange(4, dtype=np.float64).reshape(2, 2)),
        "params": params,
        "optimizer": optax.adam(1e-3).init(params),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4, impl="rbg"), (2, 3)),
        "layers": [(np.int32(7), jnp.zeros((0, 3)), np.zeros((2, 0))), {}],
        "values": {"step": 12, "loss": 0.1 + 0.2, "bad": float("inf"), "on": True, "name": "böse/.name", "none": None},
        "by_class": {3: jnp.ones(2), 10: jnp.ones((1, 1))},
    }


def assert_same(actual, expected):
    chex.assert_trees_all_equal_structs(actual, expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if isinstance(b, jax.Array) and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert type(a) is type(b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
        np.testing.assert_array_equal(a, b)


def test_a_tree_comes_back_in_the_structure_of_like_with_types_dtypes_and_values(tmp_path):
    tree = fitted_tree()
    checkpoint.save(tmp_path / "fit", tree, Config())
    assert_same(checkpoint.restore(tmp_path / "fit", tree), tree)


def test_an_abstract_like_restores_the_same_arrays(tmp_path):
    tree = {"fit": Fitted(jnp.arange(3.0), jnp.ones(2, bool)), "key": jax.random.key(1)}
    checkpoint.save(tmp_path / "fit", tree)
    assert_same(checkpoint.restore(tmp_path / "fit", jax.eval_shape(lambda: tree)), tree)


def test_without_like_a_tree_comes_back_as_dicts_and_lists(tmp_path):
    tree = fitted_tree()
    checkpoint.save(tmp_path / "fit", tree)
    plain = checkpoint.restore(tmp_path / "fit")
    assert_same(plain["fitted"], tree["fitted"]._asdict())
    assert_same(plain["head"], {"vectors": tree["head"].vectors})
    assert_same(plain["layers"], [list(tree["layers"][0]), {}])
    for same in ("params", "keys", "values", "by_class"):
        assert_same(plain[same], tree[same])


def test_a_subtree_is_restored_by_its_key_path(tmp_path):
    tree = fitted_tree()
    checkpoint.save(tmp_path / "fit", tree)
    path = tmp_path / "fit"
    assert_same(checkpoint.restore(path, subtree="params/dense"), tree["params"]["dense"])
    assert_same(checkpoint.restore(path, subtree="layers/0/0"), np.int32(7))
    assert_same(checkpoint.restore(path, tree["fitted"], subtree="fitted"), tree["fitted"])
    assert_same(checkpoint.restore(path, tree["optimizer"], subtree="optimizer"), tree["optimizer"])


def test_a_subtree_reads_no_other_array(tmp_path):
    checkpoint.save(tmp_path / "fit", {"small": np.ones(3), "large": np.random.default_rng(0).random(1_000_000)})
    files = [p for p in (tmp_path / "fit").rglob("*") if p.is_file() and p.stat().st_size > 1_000_000]
    assert files
    for file in files:
        file.unlink()
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "fit", subtree="small"), np.ones(3))
    with pytest.raises(Exception, match=r".+"):
        checkpoint.restore(tmp_path / "fit", subtree="large")


def test_an_unknown_subtree_is_refused_by_name(tmp_path):
    checkpoint.save(tmp_path / "fit", {"params": np.ones(3)})
    for wrong in ("param", "params/kernel", ""):
        with pytest.raises(ValueError, match=f"subtree must be a key path .*{wrong!r}"):
            checkpoint.restore(tmp_path / "fit", subtree=wrong)


@pytest.mark.parametrize("tree", [np.arange(3.0), 5, {"a": 1, "b": None}, {}, np.zeros((0, 2))], ids=repr)
def test_trees_of_one_leaf_or_without_arrays_are_saved_too(tmp_path, tree):
    checkpoint.save(tmp_path / "fit", tree)
    assert_same(checkpoint.restore(tmp_path / "fit"), tree)
    assert_same(checkpoint.restore(tmp_path / "fit", tree), tree)


def test_the_config_comes_back_as_json_values(tmp_path):
    checkpoint.save(tmp_path / "a", {"x": np.ones(1)}, Config())
    assert checkpoint.config(tmp_path / "a") == {"epsilon": 0.1, "sizes": [1, 2]}
    checkpoint.save(tmp_path / "b", {"x": np.ones(1)})
    assert checkpoint.config(tmp_path / "b") is None


def test_every_disagreement_with_like_is_named(tmp_path):
    tree = {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(2), "d": 1}, "e": np.ones(3), "f": jax.random.key(0), "g": None}
    checkpoint.save(tmp_path / "fit", tree)
    like = {"a": jnp.ones((3, 2)), "b": {"c": np.ones(2), "d": 1.0}, "extra": [np.ones(3)], "f": jnp.ones(2), "g": 1}
    with pytest.raises(ValueError, match="like does not agree") as error:
        checkpoint.restore(tmp_path / "fit", like)
    text = str(error.value)
    assert "a: saved as float32[2, 3], like has float32[3, 2]" in text
    assert "b/c: saved as float32[2], like has float64[2]" in text
    assert "b/d: saved as Python int, like has Python float" in text
    assert "extra/0: not in the checkpoint" in text
    assert "e: in the checkpoint, not in like" in text
    assert "f: saved as PRNG key (threefry2x32) of shape (), like has float32[2]" in text
    assert "g: saved as Python NoneType, like has Python int" in text


def test_float64_survives_where_jax_is_in_single_precision(tmp_path, x64):
    checkpoint.save(tmp_path / "fit", {"dual": jnp.full(2, 1 / 3)})
    jax.config.update("jax_enable_x64", False)
    restored = checkpoint.restore(tmp_path / "fit")["dual"]
    assert isinstance(restored, np.ndarray)
    np.testing.assert_array_equal(restored, np.full(2, 1 / 3))
    with pytest.raises(ValueError, match="dual: saved as float64.*jax_enable_x64"):
        checkpoint.restore(tmp_path / "fit", {"dual": jax.ShapeDtypeStruct((2,), np.float64)})


@pytest.mark.parametrize(
    ("leaf", "what"),
    [(np.array(["a"]), "ndarray of <U1 at x/0"), (np.array([None]), "object"), (3j, "complex"), (len, "builtin")],
)
def test_a_leaf_that_cannot_be_held_is_named_before_anything_is_written(tmp_path, leaf, what):
    with pytest.raises(ValueError, match=f"tree holds .*{what}"):
        checkpoint.save(tmp_path / "fit", {"x": [leaf]})
    assert not list(tmp_path.iterdir())


def test_colliding_names_and_odd_dict_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two leaves of one stored name"):
        checkpoint.save(tmp_path / "fit", {"a.b": np.ones(2), "a": {"b": np.zeros(2)}})
    with pytest.raises(ValueError, match=r"dict key \(1, 2\)"):
        checkpoint.save(tmp_path / "fit", {(1, 2): np.ones(2)})


def test_names_with_dots_and_slashes_survive(tmp_path):
    tree = {"model.layers.0.weight": np.ones(2), "model/layers": {"0.weight": np.zeros(3)}, "../up": np.ones(1)}
    checkpoint.save(tmp_path / "fit", tree)
    assert_same(checkpoint.restore(tmp_path / "fit", tree), tree)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit"]


def test_a_missing_folder_and_a_folder_of_other_things_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nowhere"):
        checkpoint.restore(tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be a checkpoint .*notes is not"):
        checkpoint.restore(tmp_path / "notes")
    with pytest.raises(ValueError, match="free or an earlier checkpoint"):
        checkpoint.save(tmp_path / "notes", {"x": np.ones(1)})
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_else(tmp_path):
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path / "fit", {"x": np.full(3, value)})
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "fit")["x"], np.full(3, 2.0))
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_a_save_killed_between_its_two_renames_leaves_the_earlier_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "fit", {"x": np.ones(3)})
    (tmp_path / "fit").rename(tmp_path / ".fit.previous")
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "fit")["x"], np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_arrays_are_restored_to_the_sharding_of_like(tmp_path):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    columns = NamedSharding(mesh, PartitionSpec(None, "data"))
    x = jax.device_put(jnp.arange(64.0).reshape(8, 8), rows)
    checkpoint.save(tmp_path / "fit", {"x": x})
    for target in (rows, columns, jax.sharding.SingleDeviceSharding(jax.devices()[2])):
        restored = checkpoint.restore(
            tmp_path / "fit", {"x": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=target)}
        )
        assert restored["x"].sharding == target
        np.testing.assert_array_equal(restored["x"], np.arange(64.0).reshape(8, 8))
    assert checkpoint.restore(tmp_path / "fit")["x"].sharding.device_set == {jax.devices()[0]}


def test_a_run_saves_at_its_interval_and_keeps_the_newest(tmp_path):
    with Checkpointer(tmp_path / "run", every=2, keep=2, config=Config()) as checkpoints:
        assert checkpoints.latest_step is None
        started = [checkpoints.save(step, {"x": np.full(3, step), "step": step}) for step in range(8)]
        assert started == [True, False] * 4
        assert checkpoints.save(7, {"x": np.full(3, 7), "step": 7}, force=True)
        assert not checkpoints.save(7, {"x": np.full(3, 8), "step": 8}, force=True)
    with Checkpointer(tmp_path / "run") as checkpoints:
        assert checkpoints.steps == [6, 7]
        assert checkpoints.latest_step == 7
        assert checkpoints.config() == {"epsilon": 0.1, "sizes": [1, 2]}
        assert checkpoints.restore()["step"] == 7
        assert_same(checkpoints.restore(6, {"x": np.zeros(3, int), "step": 0}), {"x": np.full(3, 6), "step": 6})
        assert_same(checkpoints.restore(subtree="x"), np.full(3, 7))
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3; it holds steps \[6, 7\]"):
            checkpoints.restore(3)
    with Checkpointer(tmp_path / "empty") as checkpoints, pytest.raises(FileNotFoundError, match="it holds none"):
        checkpoints.restore()


def test_a_background_save_holds_the_values_of_its_step_though_arrays_are_changed_or_donated(tmp_path):
    advance = jax.jit(lambda x: x + 1, donate_argnums=0)
    state, counts = jnp.zeros(200_000), np.zeros(200_000)
    with Checkpointer(tmp_path, keep=10) as checkpoints:
        for step in range(4):
            checkpoints.save(step, {"state": state, "counts": counts})
            state = advance(state)
            counts += 1
        for step in range(4):
            restored = checkpoints.restore(step)
            np.testing.assert_array_equal(restored["state"], np.full(200_000, step))
            np.testing.assert_array_equal(restored["counts"], np.full(200_000, step))


def test_nonsense_settings_of_a_run_are_refused(tmp_path, unchecked_types):
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Checkpointer(tmp_path, every=0)
    with pytest.raises(ValueError, match="keep must be at least 1, got -1"):
        Checkpointer(tmp_path, keep=-1)
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(ValueError, match="step must not be negative"):
        checkpoints.save(-1, {"x": np.ones(1)})


def test_a_term_signal_saves_the_step_at_hand_and_ends_the_run_with_status_143(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Checkpointer(tmp_path, every=1000)
    checkpoints.save(1, {"x": np.ones(1)})
    assert checkpoints.steps == []
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(checkpoint.Preempted) as stop:
        checkpoints.save(2, {"x": np.full(1, 2.0)})
    assert stop.value.code == 143
    checkpoints.close()
    assert signal.getsignal(signal.SIGTERM) is before
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "2")["x"], np.full(1, 2.0))


def start(code: str, *arguments: Path) -> subprocess.Popen:
    program = "import sys, numpy as np, jax.numpy as jnp\nfrom zsml_jax.train import Checkpointer, checkpoint\n"
    command = [sys.executable, "-c", program + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


COUNT = """
    with Checkpointer(sys.argv[1], every=5, keep=2) as checkpoints:
        step, total = checkpoints.latest_step or 0, jnp.zeros(1000)
        if step:
            total = checkpoints.restore(like={"total": total})["total"]
        print("from", step, flush=True)
        while step < 100_000:
            step += 1
            total = total + step
            checkpoints.save(step, {"total": total})
            print(step, flush=True)
"""


def test_a_run_ended_by_sigterm_resumes_at_the_very_step(tmp_path):
    reached = 0
    for _ in range(2):
        process = start(COUNT, tmp_path)
        assert process.stdout.readline() == f"from {reached}\n"
        for line in process.stdout:
            if int(line) >= reached + 12:
                break
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 143
        with Checkpointer(tmp_path) as checkpoints:
            # The step that met the signal was saved; it was begun after the last one that was printed.
            printed = int(out.split()[-1]) if out.split() else int(line)
            assert checkpoints.latest_step == printed + 1
            reached = checkpoints.latest_step
            np.testing.assert_array_equal(checkpoints.restore()["total"], np.full(1000, reached * (reached + 1) / 2))


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03, 0.1])
def test_a_save_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path, delay):
    code = """
    value = 0
    while True:
        value += 1
        checkpoint.save(sys.argv[1], {"x": np.full(500_000, value), "value": value})
        print(value, flush=True)
    """
    process = start(code, tmp_path / "fit")
    for line in process.stdout:
        if int(line) >= 2:
            break
    time.sleep(delay)
    process.kill()
    process.communicate()
    restored = checkpoint.restore(tmp_path / "fit")
    assert restored["value"] >= int(line)
    np.testing.assert_array_equal(restored["x"], np.full(500_000, restored["value"]))
    checkpoint.save(tmp_path / "fit", {"x": np.ones(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_other_orbax_users_can_read_the_arrays(tmp_path):
    from orbax.checkpoint import v1 as ocp

    checkpoint.save(tmp_path / "fit", {"params": {"kernel": np.arange(3.0)}, "step": 3}, {"lr": 1.0})
    np.testing.assert_array_equal(ocp.load(tmp_path / "fit")["params"]["kernel"], np.arange(3.0))
    metadata = json.loads((tmp_path / "fit" / "_CHECKPOINT_METADATA").read_text())
    assert metadata["custom_metadata"]["config"] == {"lr": 1.0}


def test_keys_are_restored_to_the_sharding_of_like(tmp_path):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    tree = {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4), 8)}
    checkpoint.save(tmp_path / "fit", tree)
    for spec in (PartitionSpec(), PartitionSpec("data")):
        shardings = {"one": NamedSharding(mesh, PartitionSpec()), "many": NamedSharding(mesh, spec)}
        like = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
        restored = checkpoint.restore(tmp_path / "fit", like)
        for name, keys in restored.items():
            assert keys.sharding.is_equivalent_to(shardings[name], keys.ndim)
            np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(tree[name]))


def test_a_lazy_tree_is_made_only_for_a_step_that_is_saved(tmp_path):
    made = []

    def make():
        made.append(True)
        return {"x": np.ones(1)}

    with Checkpointer(tmp_path, every=3) as checkpoints:
        assert [checkpoints.save_lazily(step, make) for step in (1, 2, 3, 3, 4)] == [False, False, True, False, False]
        assert len(made) == 1
