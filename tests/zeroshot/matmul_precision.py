"""Which matrix products of a function an accelerator may round: TPUs multiply float32 in bfloat16 unless told."""

import jax


def products_of_low_precision(function, *arguments):
    """Returns how many matrix products the function has, and how many do not ask for the highest precision."""
    with jax.default_matmul_precision("bfloat16"):
        jaxpr = jax.make_jaxpr(function)(*arguments)
    highest = [
        equation.params["precision"] == (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
        for equation in _equations(jaxpr.jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    return len(highest), highest.count(False)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
