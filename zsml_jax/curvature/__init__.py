"""Mixed-curvature embeddings of pathway graphs: products of hyperbolic, Euclidean and spherical spaces.

Start with :func:`zsml_jax.curvature.embed.fit`, which embeds a graph under a signature. :mod:`.manifold` has products,
their points and distances; :mod:`.ambient` hyperboloid, Euclidean space and sphere with the sign of the curvature as
data, :mod:`.stereographic` one space whose learnable curvature crosses zero, and :mod:`.optimizer` Riemannian SGD and
Adam. :mod:`.signature` lists signatures and suggests one, :mod:`.embed_sampled` embeds large graphs, :mod:`.baselines`
flat ones. :mod:`.gcn`, :mod:`.links` and :mod:`.link_training` predict edges.
"""

from zsml_jax.curvature import (
    ambient,
    baselines,
    decoder,
    distortion,
    embed,
    embed_sampled,
    gcn,
    link_training,
    links,
    manifold,
    optimizer,
    problem,
    signature,
    stereographic,
)
from zsml_jax.curvature.manifold import Points, Product

__all__ = [
    "Points",
    "Product",
    "ambient",
    "baselines",
    "decoder",
    "distortion",
    "embed",
    "embed_sampled",
    "gcn",
    "link_training",
    "links",
    "manifold",
    "optimizer",
    "problem",
    "signature",
    "stereographic",
]
