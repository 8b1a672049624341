"""Two processes of two CPU devices each train and save as on a pod; one process of its own resumes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.multihost]

PROGRAM = """
import sys
import jax
folder, steps, processes, process, port = sys.argv[1], *map(int, sys.argv[2:])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2 if processes > 1 else 1)
from zsml_jax.train import distributed
if processes > 1:
    distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
    distributed.initialize()  # a second call does nothing
import json
import jax.numpy as jnp
import numpy as np
from zsml_jax import data
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, fit, optimizer, sharding

def loss(params, batch, key):
    # No dropout by examples: a batch of two processes has the examples of one process in another order.
    h = jnp.tanh(batch["x"] @ params["up"]) * jax.random.bernoulli(key, 0.8, (64,))
    return jnp.square(h @ params["down"] - batch["y"]).mean(), {}

rng = np.random.default_rng(0)
rows = [{"x": x, "y": np.sin(x[:2])} for x in rng.standard_normal((50, 8)).astype(np.float32)]
params = {"up": jnp.asarray(rng.standard_normal((8, 64)), jnp.float32), "down": jnp.zeros((64, 2))}
mesh = sharding.make_mesh("data:-1,model:2") if processes > 1 else None
rules = [("up", sharding.Fsdp("data", min_size=1)), (".*", jax.sharding.PartitionSpec("model"))]
with Checkpointer(f"{folder}/checkpoints", every=3) as checkpoints:
    result = fit(loss, params, data.batches(rows, batch_size=8, seed=1), steps=steps, key=jax.random.key(2),
                 log_every=1, optimizer=optimizer.by_path([(".*", optimizer.adamw(0.02))], clip_norm=1.0), mesh=mesh,
                 rules=rules if processes > 1 else sharding.REPLICATED, checkpoints=checkpoints, average_decay=0.9,
                 folder=RunFolder.create(f"{folder}/runs", "e", "p", {}))
print("LOSSES", json.dumps([record["loss"] for record in result.history]))
"""


def run(folder, steps, processes) -> list[list[float]]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, (folder, steps, processes, process, port))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
        for process in range(processes)
    ]
    outs = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0] * processes, [out[1][-3000:] for out in outs]
    lines = [line for out, _ in outs for line in out.splitlines() if line.startswith("LOSSES")]
    return [json.loads(line.removeprefix("LOSSES")) for line in lines]


def test_two_processes_train_and_save_and_one_resumes_with_the_same_losses(tmp_path):
    (whole,) = run(tmp_path / "whole", 8, 1)
    one, other = run(tmp_path / "pod", 5, 2)
    assert one == other
    (rest,) = run(tmp_path / "pod", 8, 1)
    assert len(one) == 5 and len(rest) == 3
    np.testing.assert_allclose(one + rest, whole, atol=1e-5)


def test_a_run_of_one_process_is_resumed_by_two(tmp_path):
    (whole,) = run(tmp_path / "whole", 4, 1)
    run(tmp_path / "pod", 2, 1)
    one, _ = run(tmp_path / "pod", 4, 2)
    np.testing.assert_allclose(one, whole[2:], atol=1e-5)
