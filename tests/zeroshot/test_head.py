import jax
import numpy as np
import pytest

from zsml_jax.zeroshot.head import ClassHead, class_head

DIRECTIONS = {"north": [0.0, 2.0], "east": [3.0, 0.0], "north-east": [1.0, 1.0], "nowhere": [0.0, 0.0]}


def encoder(texts):
    return np.array([DIRECTIONS[text] for text in texts], np.float32)


def test_class_vectors_are_unit_embeddings_of_the_prompts():
    head = class_head(encoder, ["north", "east"], logit_scale=20.0)
    np.testing.assert_allclose(head.vectors, [[0, 1], [1, 0]], atol=1e-7)
    np.testing.assert_allclose(head.bias, 0)
    assert head.logit_scale == 20


def test_an_ensemble_is_the_unit_mean_of_unit_embeddings():
    head = class_head(encoder, [["north", "east", "east"], ["north-east"]])
    np.testing.assert_allclose(head.vectors[0], np.array([2, 1]) / np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(head.vectors[1], np.array([1, 1]) / np.sqrt(2), rtol=1e-6)


def test_log_probs_are_the_softmax_of_scaled_cosines_plus_the_bias():
    head = ClassHead(np.eye(2, dtype=np.float32), np.array(3.0, np.float32), np.float32([0.0, 1.0]))
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    logits = np.array([[3.0, 1.0], [0.0, 4.0]])
    np.testing.assert_allclose(head.logits(x), logits)
    np.testing.assert_allclose(
        head.log_probs(x), logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), rtol=1e-5
    )
    np.testing.assert_array_equal(head.predict(x), [0, 1])


def test_a_shifted_head_adds_to_the_bias_alone():
    head = class_head(encoder, ["north", "east"], logit_scale=2.0)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    dual = np.array([0.5, -np.inf], np.float32)
    np.testing.assert_array_equal(head.shifted(dual).predict(x), 0)
    np.testing.assert_allclose(head.shifted(dual).logits(x)[:, 0], head.logits(x)[:, 0] + 0.5)
    np.testing.assert_array_equal(head.shifted(dual).vectors, head.vectors)


def test_a_batch_of_heads_is_one_vmap():
    heads = jax.vmap(class_head(encoder, ["north", "east"]).shifted)(np.float32([[0.0, 0.0], [0.0, 1000.0]]))
    x = np.array([[0.1, 1.0]], np.float32)
    np.testing.assert_array_equal(jax.vmap(lambda head: head.predict(x))(heads), [[0], [1]])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["north"], "prompts must name at least two classes, got 1"),
        ([["north"], []], r"at least one prompt per class; classes \[1\] have none"),
        (["north", "nowhere"], "prompt embeddings must be finite and non-zero"),
    ],
)
def test_unusable_prompts_are_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        class_head(encoder, prompts)
