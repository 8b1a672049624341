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
# # A hundred labels become labels for all
#
# Of 1,797 handwritten digits a hundred have a label: is it above four? Snuba chooses labelling functions among small
# classifiers, a label model weighs their votes, and a regression learns from the result. This takes about two minutes
# on two CPU cores.
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
import numpy as np

from zsml_jax import citation, data, weaksup

# %% [markdown]
# ## Few labels

# %%
digits = data.load("digits")
x = digits.inputs.reshape(len(digits), -1)
truth = (digits.labels > 4).astype(int)
key = jax.random.key(0)
rows = weaksup.protocol.labelled_sample(truth, 100, key=key)
labels = np.full(len(x), -1)
labels[rows] = truth[rows]
print(f"{len(rows)} of {len(x)} examples have a label")

# %% [markdown]
# ## Functions that vote or abstain
# Each is a stump or a logistic regression of one pixel, with a band in which it abstains.

# %%
functions = weaksup.snuba.fit(x, labels, key=key)
votes = functions.votes(x)
print(weaksup.analyze(votes, 2, truth).table(title="What the functions do").to_markdown())

# %% [markdown]
# ## From votes to probabilities
# Accuracy on covered examples and coverage belong together; the adjusted accuracy counts the others as a guess.

# %%
for name in ("majority_vote", "metal", "flyingsquid"):
    model = getattr(weaksup.label_model, name).fit(votes, 2)
    found = weaksup.protocol.scores(truth, np.asarray(model.predict(votes)), fallback=0)
    print(f"{name:<14} covered {found.accuracy:.3f}  coverage {found.coverage:.3f}  adjusted {found.adjusted:.3f}")

# %% [markdown]
# ## What the labels alone can do
# This is the baseline that automated weak supervision has to beat, and often does not.

# %%
few_shot = weaksup.softmax_regression.fit_labelled(x, labels)
accuracy = float((few_shot.posterior(x).argmax(axis=1) == truth).mean())
print(f"few-shot regression: {accuracy:.3f}")
assert accuracy > 0.75

# %%
print(citation("autows"))
