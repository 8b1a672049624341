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
# # Graphs in curved spaces
#
# A graph is embedded so that distances between points are those of the graph. Which space fits depends on the graph:
# trees are hyperbolic, cycles spherical, and a knowledge graph is something in between. This takes about a minute on
# two CPU cores.
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

from zsml_jax import citation, data
from zsml_jax.curvature import ambient, embed, signature
from zsml_jax.curvature.manifold import Product
from zsml_jax.report import plot, plot_embedding

# %% [markdown]
# ## A tree and a cycle
# Five dimensions each, the curvature learned.

# %%
tree = data.graphs.from_edges([(str(i), str((i - 1) // 2)) for i in range(1, 31)], name="tree")
cycle = data.graphs.from_edges([(str(i), str((i + 1) % 20)) for i in range(20)], name="cycle")
spaces = {"hyperbolic": "h", "Euclidean": "e", "spherical": "s"}
products = [Product(((kind, 1, 5),)) for kind in spaces.values()]
config = embed.Config(steps=400)
rows = embed.fit_all([tree, cycle], products, config, key=jax.random.key(0))
bars = {
    graph.name: {name: float(found.distortion) for name, found in zip(spaces, row, strict=True)}
    for graph, row in zip([tree, cycle], rows, strict=True)
}
assert bars["tree"]["hyperbolic"] < bars["tree"]["Euclidean"]
assert bars["cycle"]["spherical"] < 0.01
plot.grouped_bars(bars, ylabel="average distortion", scale=1.0, digits=3)

# %% [markdown]
# ## The tree in the Poincaré disc

# %%
flat = embed.fit(tree, Product((("h", 1, 2),)), config, key=jax.random.key(0))
disc = np.asarray(ambient.to_stereographic(flat.points.parts[0][:, 0], -1.0))
plot_embedding.disc(disc, tree.pairs, title=f"distortion {float(flat.distortion):.3f}")

# %% [markdown]
# ## A real graph
# Nations: 14 countries and 55 ways to deal with one another, of which treaties make a graph. Gu's estimate of curvature
# suggests a signature.

# %%
treaties = data.pathways.knowledge_graph("nations").by_type()["treaties"]
suggested = signature.suggest(treaties.distances(), treaties.adjacency(), key=jax.random.key(0), dim=12)
found = embed.fit(treaties, suggested, config, key=jax.random.key(0))
print(suggested, f"distortion {float(found.distortion):.4f}, mAP {float(found.mean_average_precision):.3f}")

# %%
print(citation("product_embedding", "curvature"))
