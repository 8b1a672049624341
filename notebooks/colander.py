# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Labels for most, questions about the rest
#
# A pool of handwritten digits has no labels. A human labels some, a classifier labels what it is sure of, and a
# threshold for its confidence keeps the error of these auto-labels small. This takes about two minutes on two CPU
# cores.
#
# Run it inside of a checkout (in Colab, clone the repository first), which the next cell installs if need be.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("zsml_jax") is None:
    checkout = next(path for path in (Path.cwd(), *Path.cwd().parents) if (path / "pyproject.toml").is_file())
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", str(checkout)], check=True)

# %%
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax import citation, data
from zsml_jax.autolabel import Config, Oracle, Roles, Training, confidence, mlp, tbal, thresholds
from zsml_jax.report import plot

# %% [markdown]
# ## What may be spent
# Labels have roles: some train the classifier, some choose its checkpoint, some fit the confidence, some set
# thresholds, and some do nothing before the end, where they audit the result. The oracle hands out the labels that are
# asked for and counts them; nothing else sees a label.

# %%
digits = data.load("digits")
x = jnp.asarray(digits.inputs.reshape(len(digits), -1) / 16, jnp.float32)
oracle = Oracle(digits.labels)
config = Config(
    mlp(64, (32,), 10),
    10,
    Roles(selection=50, calibration=100, threshold=300, audit=100),
    training=Training(learning_rate=0.1, epochs=20),
    seed=80,
    batch=40,
    budget=160,
    error=0.05,
    shared=True,
)
fewest = thresholds.fewest_to_certify(error=0.05, n_classes=1, looks=config.rounds)
print(f"{config.rounds} rounds; a threshold needs {fewest} labelled points above it that are all right")

# %% [markdown]
# ## A run
# Each round trains, fits, sets thresholds, labels, and asks about points near the boundary.

# %%
result = tbal.run(x, oracle, config, key=jax.random.key(0))
mask = np.asarray(result.auto_mask)
print(f"asked for {oracle.spent} labels; labelled {mask.sum()} of the {int(result.in_pool.sum())} points of the pool")
print(f"what nobody could know in practice: {100 * float(result.error(digits.labels)):.1f} % of auto-labels are wrong")
audit = result.audit(config)
print(f"what the audit says: {audit.errors} of {audit.count} wrong, at most {100 * audit.upper:.1f} %")
assert float(result.coverage) > 0.3

# %% [markdown]
# ## Many runs in one program
# A whole run is a pure function, so that seeds and allowed errors are one `vmap`. Nothing is compiled again for other
# numbers.

# %%
errors = jnp.array([0.02, 0.05, 0.1])


def outcome(error, key):
    state = tbal.simulate(x, digits.labels, dataclasses.replace(config, error=error), key=key)
    return state.coverage, state.error(digits.labels)


runs = jax.jit(jax.vmap(jax.vmap(outcome, in_axes=(None, 0)), in_axes=(0, None)))
coverage, wrong = runs(errors, jax.random.split(jax.random.key(1), 8))
for row, error in enumerate(errors):
    print(
        f"allowed {100 * error:.0f} %: covered {100 * coverage[row].mean():.0f} %, "
        f"error {100 * wrong[row].mean():.1f} %, {int((wrong[row] > error).sum())} of 8 runs above what was allowed"
    )
band = lambda v: plot.Band(*(100 * np.stack([v.mean(1), v.min(1), v.max(1)])))
plot.lines(
    100 * errors, {"coverage": band(coverage), "error": band(wrong)}, xlabel="allowed error (%)", ylabel="share (%)"
)

# %% [markdown]
# ## Confidence that is trained for the job
# Colander trains a small network so that much is covered and little of it is wrong. It begins at the softmax and keeps
# a step only if points that it was not trained on say so. Published figures of Colander come from code that read the
# true labels; the docs tell what is left of them.

# %%
colander = dataclasses.replace(config, confidence=confidence.Colander(epochs=100, shared=True))
trained = tbal.run(x, Oracle(digits.labels), colander, key=jax.random.key(0))
for name, state in {"softmax": result, "Colander": trained}.items():
    print(f"{name}: covered {100 * float(state.coverage):.1f} %, error {100 * float(state.error(digits.labels)):.1f} %")

# %% [markdown]
# ## To cite

# %%
print(citation("colander", "learn_then_test"))
