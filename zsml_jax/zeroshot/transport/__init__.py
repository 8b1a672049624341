"""Optimal transport of many rows onto few classes: what :mod:`zsml_jax.zeroshot.otter` is made of.

:mod:`.marginals` says what is known of the class masses, :mod:`.semidual` is the entropic problem in k numbers,
:mod:`.annealing` its iteration, :mod:`.exact` the linear programme. :mod:`.row_blocks` and :mod:`.row_chunks` keep
memory bounded.
"""
