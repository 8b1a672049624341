"""Two processes of two CPU devices each, on this machine, as on a pod: they share the folder and every save."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from zsml_jax.train import Checkpointer, checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.multihost]

PREAMBLE = """
import sys
import jax
port, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
import time
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, checkpoint
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, P("data"))
x = jax.make_array_from_callback((8, 2), rows, lambda index: np.arange(16.0, dtype=np.float32).reshape(8, 2)[index])
"""


def start(code, folder) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    program = PREAMBLE + textwrap.dedent(code)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, str(port), str(process), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process in range(2)
    ]


def test_sharded_arrays_are_saved_by_all_and_restored_to_any_sharding(tmp_path):
    code = """
    for value in (1.0, 2.0):
        checkpoint.save(f"{folder}/fit", {"x": x * value, "step": int(value)}, {"lr": 0.1})
    like = {"x": jax.ShapeDtypeStruct((8, 2), jnp.float32, sharding=rows), "step": 0}
    restored = checkpoint.restore(f"{folder}/fit", like)
    assert restored["x"].sharding == rows and restored["step"] == 2
    for shard in restored["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, 2 * np.arange(16.0).reshape(8, 2)[shard.index])
    run = RunFolder.create(folder, "e", "p", {"a": 1})
    run.log(1, process=process)
    assert run.cached("part", lambda: float(jnp.sum(x))) == 120.0
    print(run.path.name)
    """
    processes = start(code, tmp_path)
    outs = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outs[0][1] + outs[1][1]
    # Gloo prints, too; the id of the run is the last line.
    names = {out.splitlines()[-1] for out, _ in outs}
    assert len(names) == 1
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / "fit")["x"], 2 * np.arange(16.0).reshape(8, 2))
    assert len((tmp_path / "e" / "p" / names.pop() / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_signal_to_one_process_makes_all_save_the_same_step_and_leave(tmp_path):
    code = """
    with Checkpointer(folder, every=1_000_000) as checkpoints:
        step = 0
        while True:
            step += 1
            x = x + 1
            checkpoints.save(step, {"x": x, "step": step})
            print(step, flush=True)
            time.sleep(0.01)
    """
    processes = start(code, tmp_path)
    for line in processes[0].stdout:
        if re.fullmatch(r"\d+\n", line) and int(line) >= 5:
            break
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=180)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], errors
    with Checkpointer(tmp_path) as checkpoints:
        (step,) = checkpoints.steps
        restored = checkpoints.restore()
    assert restored["step"] == step >= 5
    np.testing.assert_array_equal(restored["x"], np.arange(16.0).reshape(8, 2) + step)
