import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax import data
from zsml_jax.train import fit, optimizer


def bigram_loss(params, batch, key):
    scores_BxTxV = params["table"][batch["tokens"]]
    picked_BxT = jnp.take_along_axis(jax.nn.log_softmax(scores_BxTxV), batch["targets"][..., None], axis=-1)[..., 0]
    weight = batch["loss_mask"].sum()
    return -(picked_BxT * batch["loss_mask"]).sum() / jnp.maximum(weight, 1), {"weight": weight}


def test_a_bigram_model_reaches_the_entropy_of_its_documents_and_counts_no_target_across_them():
    # After a comes a or b, half and half; after b comes a. A target across documents, b to c, would be seen.
    texts = ["aaba" * 4] * 8 + ["c" * 16] * 8
    letters = lambda text: [ord(letter) - ord("a") for letter in text]
    store = data.token_store.tokenize(texts, letters)
    pairs = np.array([pair for text in texts for pair in zip(letters(text), letters(text)[1:], strict=False)])
    counts = np.zeros((3, 3))
    np.add.at(counts, tuple(pairs.T), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    entropy = -(counts * np.log(np.where(counts > 0, shares, 1))).sum() / counts.sum()

    batches = data.token_batches(store, length=10, batch_size=8, packing="concatenate", threads=0)
    result = fit(
        bigram_loss,
        {"table": jnp.zeros((3, 3))},
        batches,
        optimizer=optimizer.by_path([(".*", optimizer.adamw(0.3))]),
        steps=60,
        key=jax.random.key(0),
        accumulate=2,
        log_every=60,
        units=lambda batch: batch["loss_mask"].sum(),
        unit="tokens",
        show_progress=False,
    )
    whole = {
        name: np.stack([row[name] for row in data.token_rows.TokenRows(store, length=10)])
        for name in batches.__next__()
    }
    loss, metrics = bigram_loss(result.params, whole, jax.random.key(0))
    assert metrics["weight"] == len(pairs)
    assert entropy <= loss < entropy + 0.02
    assert result.history[0]["tokens_per_second"] > 0
