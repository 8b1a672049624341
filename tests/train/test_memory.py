import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.conftest import ROOT
from zsml_jax.train import init_state, make_step, sharding
from zsml_jax.train.memory import step_memory


def test_a_device_holds_its_part_of_the_state_once():
    mesh = sharding.make_mesh("data:2,model:2")
    state = jax.eval_shape(
        lambda: init_state({"w": jnp.zeros((64, 32))}, optax.sgd(0.1, momentum=0.9), key=jax.random.key(0))
    )
    rules = [("w", PartitionSpec("model", "data"))]
    state = sharding.abstract(state, sharding.state_shardings(state, mesh, rules))
    x = jax.ShapeDtypeStruct((128, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))
    step = make_step(lambda params, x, key: (jnp.square(x @ params["w"]).mean(), {}), optax.sgd(0.1, momentum=0.9))
    memory = step_memory(step, state, x, mesh=mesh)
    quarter, scalars = 64 * 32, 256
    assert 2 * quarter <= memory.outputs < 2 * quarter + scalars
    assert 2 * quarter + 64 * 64 * 4 <= memory.arguments < 2 * quarter + 64 * 64 * 4 + scalars
    assert 2 * quarter <= memory.aliased <= memory.outputs  # donated
    assert memory.temporaries > quarter  # the gradient
    assert memory.total == memory.arguments + memory.outputs - memory.aliased + memory.temporaries


@pytest.mark.slow
def test_a_step_of_llama_8b_fits_sixty_four_chips_of_sixteen_gigabytes():
    command = [sys.executable, "-m", "benchmarks.memory", "--mesh", "data:8,model:8", "--batch", "32"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "8,030,261,248 parameters, mesh data:8,model:8, batch 32 x 2048 tokens" in text
    sizes = {name: int(number.replace(",", "")) for name, number in re.findall(r"(\w+) +([\d,]{9,})\n", text)}
    # float32 masters and two moments in 64 parts; norms, scalars and the batch are the rest.
    np.testing.assert_allclose(sizes["arguments"], 12 * 8_030_261_248 / 64, rtol=0.01)
    assert sizes["aliased"] > 0.99 * sizes["outputs"]
    assert sizes["total"] < 16e9 and "  fits v5e (16 GB)" in text
