"""The config of ``experiments.pathways``."""

import dataclasses
from pathlib import Path
from typing import Literal

from zsml_jax.curvature.embed import Config as EmbedConfig


@dataclasses.dataclass(frozen=True)
class Config:
    """Embeddings of real graphs under every signature, and link prediction with them."""

    dataset: Literal["pathways", "nations", "umls"] = "pathways"
    """Which graphs; those of a knowledge graph are its relations, a graph each."""
    graphs_file: Path | None = None
    """A file of pathway graphs; by default those of Reactome are built from pinned assets."""
    novel_file: Path | None = None
    """An edge list of gene symbols, STRING's for example, where out-of-distribution edges come from."""
    graphs: int = 24
    """How many graphs are embedded, drawn at random."""
    smallest: int = 12
    """The fewest nodes of a graph's largest component."""
    largest: int = 96
    """The most nodes of it."""
    seed: int = 0
    """Of the sample, the embeddings and the splits."""
    most: int = 3
    """Factors of each kind at most; 3 makes 63 signatures."""
    dim: int = 100
    """Dimensions that the factors of a signature share."""
    restarts: int = 1
    """Runs of each signature."""
    steps: int = 1000
    """Updates of an embedding."""
    link_graphs: int = 20
    """How many graphs link prediction is tried on; 0 leaves it out."""
    novel_types: tuple[str, ...] = ("controls-state-change-of",)
    """Types of edges that no model is trained on; those not among the other edges are the novel ones."""
    fewest: int = 20
    """Positives of each split of a graph, at least."""
    link_dim: int = 48
    """Dimensions of the features of nodes."""
    hidden: tuple[int, ...] = (16, 16)
    """Widths of the layers, shared among the factors."""
    epochs: int = 200
    """Updates of a link predictor."""
    learning_rates: tuple[float, ...] = (0.01, 0.003, 0.001)
    """Tried for every model."""
    dropouts: tuple[float, ...] = (0.0, 0.2)
    """Tried for every model."""

    def embedding(self) -> EmbedConfig:
        """Returns how graphs are embedded."""
        return EmbedConfig(steps=self.steps)


def check(config: Config) -> None:
    """Refuses what cannot be.

    Raises:
      ValueError: if a number is out of range; it names the field.
    """
    for name in ("graphs", "most", "restarts", "steps", "fewest", "epochs"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if not 3 <= config.smallest <= config.largest:
        raise ValueError(f"smallest must be from 3 to largest, got {config.smallest} and {config.largest}")
    if config.dim < 3 * config.most:
        raise ValueError(f"dim must be at least {3 * config.most}, one for each factor, got {config.dim}")
    if config.link_graphs and (config.link_dim % 3 or min(config.hidden, default=0) < 3):
        raise ValueError(
            f"link_dim must be a multiple of 3 and hidden at least 3, got {config.link_dim}, {config.hidden}"
        )
