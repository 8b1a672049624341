"""A study of 64 trials in each mode of sweep.run, against one that compiles each trial and one that only loops.

    python -m benchmarks.sweep

A trial trains a small MLP on scikit-learn's digits by AdamW, on random minibatches, at its own learning rate and weight
decay. The first peer is what people write first: hyperparameters are Python numbers in a function that is
jitted for each trial. It is run on a few trials and scaled to 64, since each costs the same. The second peer jits one
function with traced hyperparameters and calls it in a loop. "first" is the first call, compilation included; ratios
compare later calls, from the pairs of one process. Runs alternate, so that a busy machine slows both.
"""

import argparse
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.measure import machine, seconds
from zsml_jax import data
from zsml_jax.train import sweep
from zsml_jax.train.points import log_uniform, sample


def trial(key, hyperparameters, x, y, *, width: int, steps: int, batch_size: int):
    """Trains one MLP and returns its parameters and its last loss."""
    optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0, weight_decay=0.0)
    first, second, data_key = jax.random.split(key, 3)
    params = {
        "hidden": jax.random.normal(first, (x.shape[1], width)) * (2 / x.shape[1]) ** 0.5,
        "bias": jnp.zeros(width),
        "out": jax.random.normal(second, (width, 10)) * (1 / width) ** 0.5,
    }
    state = optimizer.init(params)
    state = state._replace(hyperparams={**state.hyperparams, **hyperparameters})

    def loss(params, rows):
        logits = jax.nn.relu(x[rows] @ params["hidden"] + params["bias"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def step(carry, i):
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(data_key, i), (batch_size,), 0, len(x))
        value, gradient = jax.value_and_grad(loss)(params, rows)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, state), jnp.arange(steps))
    return {"params": params, "loss": losses[-20:].mean()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="hidden units")
    parser.add_argument("--steps", type=int, default=300, help="steps of a trial")
    parser.add_argument("--batch-size", type=int, default=64, help="examples of a step")
    parser.add_argument("--chunk", type=int, default=8, help="trials at a time in the mode map")
    parser.add_argument("--compiled", type=int, default=4, help="trials that the compiling loop really runs")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    digits = data.load("digits", split="train")
    x = jnp.asarray(digits.inputs.reshape(len(digits), -1) / 16)
    y = jnp.asarray(digits.labels)
    static = {"width": args.width, "steps": args.steps, "batch_size": args.batch_size}
    key = jax.random.key(0)
    points = sample(key, args.trials, learning_rate=log_uniform(1e-4, 1e-2), weight_decay=log_uniform(1e-5, 1e-2))

    def train(key, hyperparameters, x, y):
        return trial(key, hyperparameters, x, y, **static)

    study = lambda mode: (
        lambda: sweep.run(train, points, key=key, args=(x, y), mode=mode, batch_size=args.chunk if mode == "map" else 1)
    )
    traced = jax.jit(train)

    def loop():
        return [
            traced(jax.random.fold_in(key, i), {n: jnp.float32(v) for n, v in point.traced.items()}, x, y)
            for i, point in enumerate(points)
        ]

    def compiling_loop():
        for i in range(args.compiled):
            baked = dict(points[i].traced)
            jax.block_until_ready(jax.jit(lambda key, baked=baked: train(key, baked, x, y))(jax.random.fold_in(key, i)))

    runs = {"vmap": study("vmap"), f"map, {args.chunk} at a time": study("map"), "serial": study("serial")}
    runs["loop, traced"] = loop
    first = {name: seconds(run) for name, run in runs.items()}
    compiled, later = [], {name: [] for name in runs}
    for _ in range(args.repeats):
        compiled.append(seconds(compiling_loop) * args.trials / args.compiled)
        for name, run in runs.items():
            later[name].append(seconds(run))

    print(machine("optax"))
    best = runs["vmap"]().best("loss")
    print(
        f"{args.trials} trials of {args.steps} steps of {args.batch_size}, MLP 64-{args.width}-10 on digits, "
        f"{len(jax.devices())} device(s); best {best.fields}, loss {best.output['loss']:.4f}; {args.repeats} repeats"
    )
    print(f"{'loop that compiles each trial':<30} {statistics.median(compiled):8.2f} s (from {args.compiled} trials)")
    for name, times in later.items():
        against = lambda peer, times=times: "{:6.1f} ({:.1f} to {:.1f})".format(
            *(f([p / t for p, t in zip(peer, times, strict=True)]) for f in (np.median, min, max))
        )
        print(
            f"{name:<30} {statistics.median(times):8.2f} s (first {first[name]:.2f} s)   times faster than "
            f"compiling {against(compiled)}, than the traced loop {against(later['loop, traced'])}"
        )


if __name__ == "__main__":
    main()
