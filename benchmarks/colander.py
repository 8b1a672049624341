"""Colander over seeds and settings in one program against a torch loop of the same job; thresholds of a large pool.

    python -m benchmarks.colander

The job is a whole run of threshold-based auto-labelling on scikit-learn's digits for each of 5 seeds and 12 settings
of Colander (two penalties, three steepnesses, two learning rates): in every round an MLP is trained from scratch by
SGD, Colander is fitted by Adam on minibatches with the paper's objective, thresholds are estimated by the paper's
rule, and points are labelled and asked for. The peer does it as the released code does, one run after the other, one
minibatch after the other. Each of its runs costs the same, so a few are timed and scaled to 60. Both do the same
number of epochs of the same batch sizes; they draw different numbers.
"""

import argparse
import dataclasses
import itertools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.measure import machine, seconds
from zsml_jax import data
from zsml_jax.autolabel import Config, Roles, Training, mlp, tbal, thresholds
from zsml_jax.autolabel.confidence import Colander

SETTINGS = list(itertools.product((10.0, 100.0), (0.01, 0.1, 1.0), (0.1, 0.01)))
ROLES = Roles(0, 200, 200)
WIDTH, SEED, BATCH, BUDGET, ERROR = 32, 80, 40, 200, 0.05


def ours(x: np.ndarray, y: np.ndarray, seeds: int, epochs: int, colander_epochs: int):
    """Returns a function that does all runs, and gives their coverage."""
    config = Config(
        mlp(x.shape[1], (WIDTH,), 10),
        10,
        ROLES,
        confidence=Colander.paper(epochs=colander_epochs),
        training=Training(learning_rate=0.1, epochs=epochs, enough=0.0),
        seed=SEED,
        batch=BATCH,
        budget=BUDGET,
        error=ERROR,
    ).as_in_the_papers()
    x, y = jnp.asarray(x), jnp.asarray(y, jnp.int32)

    def one(key, setting):
        penalty, alpha, rate = setting
        confidence = Colander.paper(penalty, alpha, rate, epochs=colander_epochs)
        return tbal.simulate(x, y, dataclasses.replace(config, confidence=confidence), key=key).coverage

    over = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))
    keys, settings = jax.random.split(jax.random.key(0), seeds), tuple(map(jnp.asarray, zip(*SETTINGS, strict=True)))
    return lambda: over(keys, settings)


def peer(x, y, setting, seed: int, epochs: int, colander_epochs: int) -> float:
    """One run with torch, minibatch by minibatch; returns its coverage."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held, pool = order[: ROLES.total], order[ROLES.total :]
    left = np.ones(len(x), bool)
    left[held] = False
    trained = list(pool[:SEED])
    left[trained] = False
    active, labelled = np.ones(len(held), bool), 0
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    while True:
        net, head = torch_classifier(tx[trained], ty[trained], epochs)
        with torch.no_grad():
            hidden = net(tx)
            logits = head(hidden)
        predicted = logits.argmax(1).numpy()
        rows = rng.permutation(held[active])
        cal, th = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        z = torch.cat([logits, hidden], dim=1)
        g = torch_colander(z[cal], torch.from_numpy(predicted[cal]), ty[cal], setting, colander_epochs)
        with torch.no_grad():
            score = g(z).softmax(1).numpy()[np.arange(len(x)), predicted]
        limit = peer_thresholds(score[th], predicted[th], predicted[th] == y[th])
        accepted = left & (score >= limit[predicted])
        labelled += accepted.sum()
        left &= ~accepted
        active &= score[held] < limit[predicted[held]]
        if len(trained) >= BUDGET or not left.any() or active.sum() < 4:
            return labelled / len(pool)
        top = logits.softmax(1).topk(2).values.numpy()
        near = np.flatnonzero(left)[np.argsort((top[:, 0] - top[:, 1])[left])[: 2 * BATCH]]
        asked = rng.permutation(near)[:BATCH]
        trained += list(asked)
        left[asked] = False


def torch_classifier(x, y, epochs: int):
    net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], WIDTH), torch.nn.Tanh())
    head = torch.nn.Linear(WIDTH, 10)
    parameters = [*net.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(head(net(x[rows])), y[rows]).backward()
            sgd.step()
        schedule.step()
    return net, head


def torch_colander(z, predicted, y, setting, epochs: int):
    penalty, alpha, rate = setting
    d = z.shape[1]
    g = torch.nn.Sequential(
        torch.nn.Linear(d, 2 * d, bias=False), torch.nn.Tanh(), torch.nn.Linear(2 * d, 10, bias=False)
    )
    t = torch.full((10,), 0.5, requires_grad=True)
    adams = [torch.optim.Adam(g.parameters(), lr=rate, weight_decay=0.1), torch.optim.Adam([t], lr=rate)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs) for adam in adams]
    wrong = (predicted != y).float()
    for _ in range(epochs):
        for rows in torch.randperm(len(z)).split(64):
            for adam in adams:
                adam.zero_grad()
            own = g(z[rows]).softmax(1).gather(1, predicted[rows, None])[:, 0]
            taken = torch.sigmoid(alpha * (own - t[predicted[rows]]))
            (-taken.mean() + penalty * (taken * wrong[rows]).sum() / taken.sum()).backward()
            for adam in adams:
                adam.step()
        for schedule in schedules:
            schedule.step()
    return g


def peer_thresholds(scores: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """A.2 by a loop over classes and candidates, as the released code has it."""
    limits = np.full(10, np.inf)
    for k in range(10):
        for t in np.sort(scores)[::-1]:
            above = (predicted == k) & (scores >= t)
            n = above.sum()
            if n > 10:
                e = 1 - correct[above].mean()
                if e + 0.25 * np.sqrt(e * (1 - e)) <= ERROR:
                    limits[k] = t
    return limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50, help="of the classifier")
    parser.add_argument("--colander-epochs", type=int, default=500)
    parser.add_argument("--timed", type=int, default=1, help="runs of the torch loop in each repeat")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    digits = data.load("digits")
    x, y = (digits.inputs.reshape(len(digits), -1) / 16).astype(np.float32), np.asarray(digits.labels)
    everything = ours(x, y, args.seeds, args.epochs, args.colander_epochs)
    print(machine("torch"), flush=True)
    first, runs = seconds(everything), args.seeds * len(SETTINGS)
    pairs = []
    for repeat in range(args.repeats):
        mine, start = seconds(everything), time.perf_counter()
        for i in range(args.timed):
            setting = SETTINGS[(repeat * args.timed + i) % len(SETTINGS)]
            peer(x, y, setting, repeat, args.epochs, args.colander_epochs)
        pairs.append((mine, (time.perf_counter() - start) / args.timed * runs))
    ratios = [b / a for a, b in pairs]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{runs} runs ({args.seeds} seeds x {len(SETTINGS)} settings): ours {mine:.1f} s (first {first:.1f} s)")
    print(
        f"torch loop {theirs:.0f} s (from {args.timed} runs): {statistics.median(ratios):.1f} times faster "
        f"({min(ratios):.1f} to {max(ratios):.1f}, {len(pairs)} pairs)"
    )
    rng = np.random.default_rng(0)
    n, k = 1_000_000, 1000
    scores, predicted = rng.random(n).astype(np.float32), rng.integers(0, k, n)
    correct = rng.random(n) < scores
    for method in ("sigma", "certified"):
        run = lambda method=method: thresholds.estimate(
            scores, predicted, correct, error=0.1, n_classes=k, method=method
        )
        first, later = seconds(run), [seconds(run) for _ in range(args.repeats)]
        median = statistics.median(later)
        print(f"thresholds, {n:,} scores, {k:,} classes, {method}: {median:.2f} s (first {first:.2f} s)")


if __name__ == "__main__":
    main()
