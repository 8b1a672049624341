import jax
import numpy as np
import pytest

from zsml_jax.evaluate.fact_ranks import FactRanks

#: Relation a has ranks 1, 3 and one not found, relation b 2.
FOUND = FactRanks(
    ranks=np.array([1, 3, 0, 2]),
    relations=np.array([0, 0, 0, 1]),
    relation_names=("a", "b"),
    asked=np.array([0, 1, 2, 5]),
    predictions=("w", "x", "y", "z"),
)


def test_precision_and_reciprocal_rank_are_those_computed_by_hand():
    assert [FOUND.precision_at(k) for k in (1, 2, 3, 10)] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 3 / 4])
    assert [FOUND.precision_at(k, average="macro") for k in (1, 2, 3)] == pytest.approx([1 / 6, 4 / 6, 5 / 6])
    assert FOUND.mean_reciprocal_rank() == pytest.approx((1 + 1 / 3 + 1 / 2) / 4)
    assert FOUND.mean_reciprocal_rank(average="macro") == pytest.approx(((1 + 1 / 3) / 3 + 1 / 2) / 2)
    assert FOUND.by_relation(2) == {"a": pytest.approx(1 / 3), "b": 1.0}


@pytest.mark.slow
def test_intervals_hold_the_estimate_and_narrow_with_more_facts(key):
    many = FOUND._replace(ranks=np.tile(FOUND.ranks, 50), relations=np.tile(FOUND.relations, 50))
    for average in ("micro", "macro"):
        for k in (1, None):
            few, more = (found.interval(k, key=key, average=average) for found in (FOUND, many))
            assert more.low < more.estimate < more.high
            assert float(few.estimate) == pytest.approx(float(more.estimate), rel=1e-5)
            assert more.high - more.low < few.high - few.low
    micro = many.interval(1, key=key)
    # The standard error of a share.
    assert float(micro.standard_error) == pytest.approx(np.sqrt(0.25 * 0.75 / 200), rel=0.1)


def test_what_is_no_measure_is_refused(unchecked_types):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        FOUND.precision_at(0)
    with pytest.raises(ValueError, match="average must be 'micro' or 'macro', got 'mean'"):
        FOUND.precision_at(1, average="mean")
    one = FOUND._replace(ranks=FOUND.ranks[:1], relations=FOUND.relations[:1])
    with pytest.raises(ValueError, match="at least two facts"):
        one.interval(key=jax.random.key(0))
