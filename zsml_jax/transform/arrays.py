"""The arrays of a transform: which of them belong to which site."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from zsml_jax.transform.patterns import nearest_paths
from zsml_jax.transform.sites import Site
from zsml_jax.typing import PyTree


def arrays_of(
    chosen: Sequence[Site], per_site: Mapping[str, PyTree] | None, per_layer: PyTree
) -> dict[str, tuple[PyTree, ...]]:
    """Returns for each chosen site the arrays that its fn is given.

    Args:
      chosen: the sites that a pattern describes.
      per_site: by path a pytree, with the leading axes of the site's ``stack``.
      per_layer: a pytree whose leaves have a leading axis l, one row for each layer of the model.

    Returns:
      By path: this site's arrays, then its layer's, whichever were given. Those of scanned sites still have the
      leading axis, those of others are this layer's row.

    Raises:
      ValueError: if paths are missing or unknown, a leading axis has another length, or a site has no layer.
    """
    if per_site is not None:
        paths = [site.path for site in chosen]
        for path in per_site:
            if path not in paths:
                near = ", ".join(map(repr, nearest_paths(path, paths)))
                raise ValueError(f"per_site has arrays for {path!r}, which no pattern describes; nearest: {near}")
        if missing := [path for path in paths if path not in per_site]:
            raise ValueError(f"per_site must have arrays for every site; it has none for {missing}")
    given = {}
    for site in chosen:
        own = () if per_site is None else (_checked(per_site[site.path], site, site.stack, "per_site"),)
        given[site.path] = own if per_layer is None else (*own, _layer(per_layer, site))
    return given


def _layer(per_layer: PyTree, site: Site) -> PyTree:
    if site.stack:
        return _checked(per_layer, site, site.stack, "per_layer")
    if site.layer is None or site.num_layers is None:
        raise ValueError(f"per_layer: the site {site.path!r} is in no layer; its path must have a name with a number")
    return jax.tree.map(lambda leaf: leaf[site.layer], _checked(per_layer, site, (site.num_layers,), "per_layer"))


def _checked(tree: PyTree, site: Site, leading: tuple[int, ...], argument: str) -> PyTree:
    for leaf in jax.tree.leaves(tree):
        if np.shape(leaf)[: len(leading)] != leading:
            raise ValueError(
                f"{argument} for {site.path!r} must have the leading axes {leading} (layers), got {np.shape(leaf)}"
            )
    return tree
