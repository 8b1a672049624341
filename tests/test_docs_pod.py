"""The program of docs/tpu_pod.md, as two processes over loopback, as the page says."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.conftest import ROOT
from zsml_jax import data, models

pytestmark = [pytest.mark.slow, pytest.mark.multihost]


def program(name: str) -> str:
    (text,) = re.findall(rf"```python\n# {name}\n(.*?)```", (ROOT / "docs" / "tpu_pod.md").read_text(), re.S)
    return text


def train(folder, out, steps, processes):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    sizes = ["--length", "8", "--batch", "4", "--every", "2", "--steps", str(steps), "--dtype", "float32"]
    mesh = "data:2,model:2" if processes == 2 else "data:1,model:1"
    command = [
        sys.executable,
        "train_pod.py",
        "--model",
        "tiny-llama",
        "--tokens",
        "tokens",
        "--out",
        out,
        "--mesh",
        mesh,
    ]
    running = [
        subprocess.Popen(
            [
                *command,
                *sizes,
                "--coordinator",
                f"localhost:{port}",
                "--processes",
                str(processes),
                "--process",
                str(i),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(processes), "PYTHONPATH": str(ROOT)},
        )
        for i in range(processes)
    ]
    outs = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * processes, [out[1][-3000:] for out in outs]
    (line,) = [line for out, _ in outs for line in out.splitlines() if line.startswith("LOSSES")]
    return json.loads(line.removeprefix("LOSSES"))


def test_the_program_of_the_pod_page_trains_on_two_processes_and_resumes_and_its_model_is_exported(tmp_path):
    shutil.copytree(ROOT / "tests" / "golden" / "decoders" / "llama", tmp_path / "tiny-llama")
    rng = np.random.default_rng(0)
    texts = [bytes(rng.integers(1, 37, 20).tolist()).decode("latin-1") for _ in range(20)]
    tokens = data.token_store.tokenize(texts, lambda text: list(text.encode("latin-1")), end_token=0)
    data.token_store.save(tmp_path / "tokens", tokens)
    for name in ("train_pod.py", "export.py"):
        (tmp_path / name).write_text(program(name))
    whole = train(tmp_path, "alone", 4, 1)
    first = train(tmp_path, "pod", 3, 2)
    rest = train(tmp_path, "pod", 4, 2)
    assert len(whole) == 4 and len(first) == 3 and len(rest) == 1
    # The shorter run's schedule ends sooner, which at a rate of 1e-5 is seen in the sixth digit; other batches would be
    # seen in the first.
    np.testing.assert_allclose(first + rest, whole, atol=1e-4)
    command = [sys.executable, "export.py", "--model", "tiny-llama", "--out", "pod", "--to", "exported"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    before, after = models.load(tmp_path / "tiny-llama").params, models.load(tmp_path / "exported").params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, after)
    assert 0 < max(jax.tree.leaves(moved)) < 1e-3
