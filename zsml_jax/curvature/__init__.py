"""Mixed-curvature embeddings of pathway graphs: products of hyperbolic, Euclidean and spherical spaces.

Start with :class:`~zsml_jax.curvature.manifold.Product` and :mod:`.manifold` for the geometry. All spaces behave as
:mod:`.spaces` says: :mod:`.ambient` for hyperboloid, Euclidean space and sphere with the sign of the curvature as data,
:mod:`.stereographic` for one space whose learnable curvature crosses zero.
"""
