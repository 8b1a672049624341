"""Small image nets on labelled images: one net, or a study over learning rates and seeds in one compiled program.

python -m experiments.image_classifier mnist --data-dir ../shared/data/tfds
python -m experiments.image_classifier fashion_mnist_study --data-dir ../shared/data/tfds
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import runner
from experiments.otter import bounds
from zsml_jax import data, evaluate
from zsml_jax.models import vision
from zsml_jax.report import Column, RunFolder, Table, plot, progress
from zsml_jax.train import checkpoint, sweep
from zsml_jax.train.points import grid
from zsml_jax.train.study import Study
from zsml_jax.typing import Array, Key, PyTree

#: Test accuracies that papers report: LeCun et al. (1998), figure 9, LeNet-5 without distorted images.
PUBLISHED = {("mnist", "lenet5"): 0.9905}
#: Images evaluated at a time.
_CHUNK = 500


@dataclasses.dataclass(frozen=True)
class Config:
    """A net, its data, and the learning rates and seeds to train it with."""

    dataset: str = "mnist"
    """A labelled set of images: digits, or a TFDS set with a train and a test split."""
    data_dir: str | None = None
    """Where TFDS sets lie; TFDS_DATA_DIR or ~/tensorflow_datasets by default."""
    net: str = "lenet5"
    """mlp, lenet5, cifar-net, resnet18, resnet20 or wrn-<d>-<k>."""
    learning_rates: tuple[float, ...] = (1e-3,)
    """Adam's, at the start of a cosine decay to 0."""
    seeds: int = 1
    """Trials for each learning rate."""
    epochs: int = 5
    batch_size: int = 128
    train_examples: int = 0
    """Use so many training images; 0 is all."""
    mode: sweep.Mode = "map"
    """How trials run. vmap suits mlp and lenet5; on a CPU the other nets' convolutions are slow with it."""
    trials_at_a_time: int = 1
    """With the mode map."""
    seed: int = 0


class Images(NamedTuple):
    """Images of one split, ``(n, height, width, channels)`` as stored, with their labels."""

    x: Array
    labels: Array


class Splits(NamedTuple):
    """What a trial sees; the learning rate is chosen on ``validation``."""

    train: Images
    validation: Images
    test: Images


class Trainer:
    """One trial as pure functions of its state.

    Args:
      config: the experiment's.
      num_classes: of the data set.
      steps: optimizer steps of an epoch.
      scale: what pixels are divided by.
    """

    def __init__(self, config: Config, num_classes: int, steps: int, scale: float):
        self.config, self.steps, self.scale = config, steps, scale
        self.module = vision.named(config.net, num_classes=num_classes)
        self.adam = optax.scale_by_adam()

    def start(self, key: Key, hyperparameters: dict[str, Array], splits: Splits) -> dict[str, PyTree]:
        """Returns the state before the first epoch."""
        del hyperparameters
        _, height, width, channels = splits.train.x.shape
        variables = vision.init(self.module, key, (height, width, channels))
        zero = jnp.float32(0)
        figures = {"loss": zero, "validation": zero, "test": zero}
        return {"variables": variables, "adam": self.adam.init(variables.params), "epoch": jnp.int32(0), **figures}

    def epoch(self, key: Key, hyperparameters: dict[str, Array], state: dict[str, Any], splits: Splits) -> dict:
        """Trains once over the shuffled training images and measures the accuracies."""
        order = jax.random.permutation(jax.random.fold_in(key, state["epoch"]), len(splits.train.labels))
        batches = order[: self.steps * self.config.batch_size].reshape(self.steps, self.config.batch_size)
        total = self.config.epochs * self.steps

        def step(carry: tuple, batch: tuple) -> tuple:
            variables, adam = carry
            i, rows = batch
            gradient_of = jax.value_and_grad(self._loss, has_aux=True)
            (loss, stats), gradient = gradient_of(variables.params, variables.batch_stats, splits.train, rows)
            direction, adam = self.adam.update(gradient, adam)
            rate = hyperparameters["learning_rate"] * optax.cosine_decay_schedule(1.0, total)(i)
            params = jax.tree.map(lambda p, d: p - rate * d, variables.params, direction)
            return (vision.Variables(params, stats), adam), loss

        numbers = state["epoch"] * self.steps + jnp.arange(self.steps)
        (variables, adam), losses = jax.lax.scan(step, (state["variables"], state["adam"]), (numbers, batches))
        return {
            "variables": variables,
            "adam": adam,
            "epoch": state["epoch"] + 1,
            "loss": losses.mean(),
            "validation": self._accuracy(variables, splits.validation),
            "test": self._accuracy(variables, splits.test),
        }

    def _loss(self, params: PyTree, stats: PyTree, images: Images, rows: Array) -> tuple[Array, PyTree]:
        variables = vision.Variables(params, stats)
        logits, stats = vision.apply(self.module, variables, images.x[rows] / self.scale, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, images.labels[rows]).mean(), stats

    def _accuracy(self, variables: vision.Variables, images: Images) -> Array:
        def right(example: Images) -> Array:
            logits, _ = vision.apply(self.module, variables, example.x[None] / self.scale)
            return jnp.argmax(logits[0]) == example.labels

        return jax.lax.map(right, images, batch_size=_CHUNK).mean(dtype=jnp.float32)


def run(config: Config, folder: RunFolder) -> None:
    """Trains all trials epoch by epoch, and reports the learning rate that validation chooses."""
    for name in ("seeds", "epochs", "batch_size", "trials_at_a_time"):
        if getattr(config, name) < 1:
            raise SystemExit(f"{name} must be at least 1, got {getattr(config, name)}")
    if not config.learning_rates or min(config.learning_rates) <= 0:
        raise SystemExit(f"learning_rates must be positive, got {config.learning_rates}")
    try:
        splits, class_names = load(config)
        steps = len(splits.train.labels) // config.batch_size
        if not steps:
            raise ValueError(f"batch_size must be at most the {len(splits.train.labels)} training images")
        trainer = Trainer(config, len(class_names), steps, float(splits.train.x.max()))
        points, key = grid(learning_rate=config.learning_rates), jax.random.key(config.seed)
        study = sweep.abstract(trainer.start, points, key=key, seeds=config.seeds, args=(splits,))
    except ValueError as error:  # a set, a split or a net that does not exist, or images that do not fit the net
        raise SystemExit(str(error)) from error
    options: dict[str, Any] = {"mode": config.mode, "args": (splits,), "batch_size": config.trials_at_a_time}
    with checkpoint.Checkpointer(folder.checkpoints / "study", keep=1, config=config) as checkpoints:
        done = checkpoints.latest_step or 0
        if done:
            study = checkpoints.restore(like=study)
        else:
            study = sweep.run(trainer.start, points, key=key, seeds=config.seeds, **options)
        for epoch in progress(range(done + 1, config.epochs + 1), "epochs"):
            study = sweep.advance(trainer.epoch, study, **options)
            remember(folder, epoch, study)
            checkpoints.save(epoch, study)
    write(config, folder, splits)


def load(config: Config) -> tuple[Splits, tuple[str, ...]]:
    """Loads training, validation and test images; a TFDS set gives the last tenth of its training set to validation."""
    built_in = config.dataset in data.dataset_names()
    names = ("train", "validation", "test") if built_in else ("train[:90%]", "train[90%:]", "test")
    sets = [data.load(config.dataset, split=name, data_dir=None if built_in else config.data_dir) for name in names]
    for part in sets:
        if not isinstance(part.inputs, np.ndarray) or part.inputs.ndim not in (3, 4):
            raise ValueError(f"dataset must hold images, got {part!r}")
    if config.train_examples:
        sets[0] = sets[0].subset(range(min(config.train_examples, len(sets[0]))))
    images = lambda x: jnp.asarray(x if x.ndim == 4 else x[..., None])
    parts = [Images(images(part.inputs), jnp.asarray(part.labels, jnp.int32)) for part in sets]
    return Splits(*parts), sets[0].class_names


def remember(folder: RunFolder, epoch: int, study: Study) -> None:
    """Writes an epoch's figures of all trials to the run."""
    rows = folder.cached(f"epoch {epoch}", lambda: study.rows("loss", "validation", "test"))
    best = study.best("validation", "max")
    folder.log(epoch, trials=len(rows), diverged=sum(not row["finite"] for row in rows), best=best.fields)


def write(config: Config, folder: RunFolder, splits: Splits) -> None:
    """Writes the report: a row for each learning rate, the chosen one, and how they went."""
    epochs = [folder.cached(f"epoch {epoch}", list) for epoch in range(1, config.epochs + 1)]
    table = Table(
        [
            "learning rate",
            *(Column(name, percent=True, digits=2, best="max") for name in ("validation", "test")),
            Column("loss", digits=4, best="min"),
            "diverged",
        ],
        title=f"{config.net} on {config.dataset}",
    )
    validation = {}
    for i, rate in enumerate(config.learning_rates):
        rows = _of(epochs[-1], i, config)
        validation[rate] = float(np.mean([row["validation"] for row in rows]))
        table.add(f"{rate:g}", *(_estimate(rows, n) for n in ("validation", "test", "loss")), _diverged(rows))
    chosen = max(validation, key=lambda rate: validation[rate])
    document = folder.document(f"{config.net} on {config.dataset}")
    sizes = ", ".join(f"{len(part.labels):,} {name}" for name, part in splits._asdict().items())
    document.text(
        f"Adam with cosine decay, {config.epochs} epochs of batches of {config.batch_size}; {sizes} images. "
        + (f"Mean and 95 % t interval over {config.seeds} seeds." if config.seeds > 1 else "One seed.")
    )
    document.table(table)
    test = _estimate(_of(epochs[-1], config.learning_rates.index(chosen), config), "test")
    value, *interval = [f"{100 * x:.2f}" for x in (test if isinstance(test, tuple) else (test,))]
    published = PUBLISHED.get((config.dataset, config.net))
    document.text(
        f"Validation chooses the learning rate {chosen:g}: test accuracy {value} %"
        + (f" [{', '.join(interval)}]." if interval else ".")
        + (f" Published: {100 * published:.2f} %." if published else "")
    )
    if len(config.learning_rates) > 1:
        bands = {name: _band([_of(epochs[-1], i, config) for i in range(len(validation))], name) for name in _SHOWN}
        rates = plot.lines(
            config.learning_rates, bands, xlabel="learning rate", ylabel="accuracy (%)", title="", log_x=True
        )
        document.figure("rates", rates, "Accuracy after the last epoch against the learning rate")
    if config.epochs > 1:
        curves = {
            f"{rate:g}": _band([_of(rows, i, config) for rows in epochs], "validation")
            for i, rate in enumerate(config.learning_rates)
        }
        figure = plot.lines(
            range(1, config.epochs + 1), curves, xlabel="epoch", ylabel="validation accuracy (%)", title=""
        )
        document.figure("epochs", figure, "Validation accuracy of each learning rate")
    document.write()


_SHOWN = ("validation", "test")


def _of(rows: list[dict[str, Any]], point: int, config: Config) -> list[dict[str, Any]]:
    """The trials of one learning rate."""
    return [row for row in rows if row["trial"] // config.seeds == point]


def _diverged(rows: list[dict[str, Any]]) -> int:
    return sum(not row["finite"] for row in rows)


def _estimate(rows: list[dict[str, Any]], name: str) -> float | tuple[float, float, float]:
    values = np.array([row[name] for row in rows])
    if len(values) < 2 or not np.isfinite(values).all():
        return float(values.mean())
    return bounds(evaluate.seed_interval(values))


def _band(points: list[list[dict[str, Any]]], name: str) -> plot.Band:
    estimates = [_estimate(rows, name) for rows in points]
    return plot.Band(*(100 * np.array([e if isinstance(e, tuple) else (e, e, e) for e in estimates]).T))


if __name__ == "__main__":
    runner.main(run, "image_classifier")
