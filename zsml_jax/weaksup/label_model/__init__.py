"""Label models: from votes of labelling functions to the probability of each class.

Each module has ``fit(votes, k) -> model``, and each model, a pytree, ``posterior(votes)`` and ``predict(votes)``:
:mod:`.majority_vote` and :mod:`.weighted_vote` count; :mod:`.dawid_skene` and :mod:`.naive_bayes` maximise the
likelihood by EM; :mod:`.metal` matches second moments as Snorkel does; :mod:`.flyingsquid` solves triplets in closed
form. All run under ``jit``, and ``vmap`` over problems of one size.
"""

from zsml_jax.weaksup.label_model import dawid_skene, flyingsquid, majority_vote, metal, naive_bayes, weighted_vote
from zsml_jax.weaksup.label_model.flyingsquid import TripletModel
from zsml_jax.weaksup.label_model.vote_model import VoteModel
from zsml_jax.weaksup.label_model.weighted_vote import VoteShare

__all__ = [
    "TripletModel",
    "VoteModel",
    "VoteShare",
    "dawid_skene",
    "flyingsquid",
    "majority_vote",
    "metal",
    "naive_bayes",
    "weighted_vote",
]
