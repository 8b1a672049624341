"""Real signals to a real run: what is resumed has, bit for bit, the losses of a run that nobody disturbed."""

import signal
import subprocess
import sys
import time

import pytest

from zsml_jax.train import Checkpointer

pytestmark = pytest.mark.slow

STEPS = 60
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from zsml_jax import data
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, EarlyStopping, Evaluator, fit, optimizer, schedules

class Printer:
    def write(self, step, metrics):
        if "loss" in metrics:
            print(step, metrics["loss"].hex(), flush=True)
            import time
            time.sleep(0.01)
    def close(self):
        pass

def loss(params, batch, key):
    h = jnp.tanh(batch["x"] @ params["up"]) * jax.random.bernoulli(key, 0.8, (batch["x"].shape[0], 64))
    return jnp.square(h @ params["down"] - batch["y"]).mean(), {}

root, every, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
rows = [{"x": x, "y": np.sin(x[:2])} for x in rng.standard_normal((50, 8)).astype(np.float32)]
params = {"up": jnp.asarray(rng.standard_normal((8, 64)), jnp.float32), "down": jnp.zeros((64, 2))}
rate = schedules.warmup_cosine(0.02, steps=steps, warmup_steps=5)
folder = RunFolder.create(root + "/runs", "e", "p", {})
folder.add_writer(Printer())
norm = Evaluator("eval", lambda params: {"norm": jnp.abs(params["up"]).sum()}, every=7)
with Checkpointer(root + "/checkpoints", every=every) as checkpoints:
    fit(loss, params, data.batches(rows, batch_size=8, seed=1), steps=steps, key=jax.random.key(2), log_every=1,
        optimizer=optimizer.by_path([(".*", optimizer.adamw(rate))], clip_norm=1.0), accumulate=2, average_decay=0.99,
        checkpoints=checkpoints, folder=folder, evaluators=[norm], early_stopping=EarlyStopping("eval/norm", 99),
        show_progress=False)
"""


def start(folder, every=1000):
    command = [sys.executable, "-c", PROGRAM, str(folder), str(every), str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read(process, until=None):
    """Reads lines of step and loss up to a step, or all."""
    losses = {}
    for line in process.stdout:
        step, loss = line.split()
        losses[int(step)] = loss
        if int(step) == until:
            break
    return losses


def finish(process, status=0):
    losses = read(process)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == status, errors
    return losses


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    losses = finish(start(tmp_path_factory.mktemp("whole")))
    assert list(losses) == list(range(1, STEPS + 1))
    return losses


def test_a_run_told_to_stop_several_times_has_the_losses_of_one_that_was_not(whole, tmp_path):
    seen = {}
    for stop in (1, 17, 40):
        process = start(tmp_path)
        first = read(process, until=stop)
        assert min(first) == len(seen) + 1
        process.send_signal(signal.SIGTERM)
        seen |= first | finish(process, status=143)
        with Checkpointer(tmp_path / "checkpoints") as checkpoints:
            assert checkpoints.latest_step == max(seen)
    seen |= finish(start(tmp_path))
    assert seen == whole


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_run_killed_during_a_save_loses_at_most_one_interval_and_goes_on_with_the_same_losses(whole, tmp_path, delay):
    every = 4
    process = start(tmp_path, every)
    before = read(process, until=20)
    time.sleep(delay)
    process.kill()
    before |= read(process)
    process.communicate()
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        saved = checkpoints.latest_step
    # The save of the newest due step may have been under way; it was begun only when the one before it was whole.
    begun = (max(before) - 1) // every * every
    assert saved is not None and saved >= begun - every
    after = finish(start(tmp_path, every))
    assert min(after) == saved + 1
    assert before | after == whole
