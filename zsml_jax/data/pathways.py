"""Real graphs to embed: gene pathways of Reactome and KEGG, and two small knowledge graphs.

The gene sets are the pathway databases' own; the edges are every Pathway Commons relation whose two ends lie in a set,
so that an edge is real but not specific to the pathway. :func:`load` reads a file of such graphs where the caller has
one, and otherwise builds those of Reactome from two pinned assets.
"""

import collections
import csv
import gzip
import json
from pathlib import Path

from zsml_jax.data import assets, graphs
from zsml_jax.data.graphs import Graph

#: The relations of Pathway Commons that are used, as in the built file.
RELATIONS = (
    *("in-complex-with", "controls-state-change-of", "catalysis-precedes", "interacts-with"),
    *("controls-phosphorylation-of", "controls-expression-of", "controls-transport-of"),
)


def load(path: str | Path | None = None, *, smallest: int = 10, largest: int = 300) -> list[Graph]:
    """Returns pathway graphs in a stable order.

    Args:
      path: a ``.json`` or ``.json.gz`` file: a list of ``{id, name, source, genes, edges: [gene, type, gene]}``. By
        default the graphs are built from the assets ``regulon-enrichment`` (edges) and ``binn`` (Reactome's gene sets),
        which takes a minute.
      smallest: the fewest genes of a pathway.
      largest: the most genes of a pathway.

    Raises:
      ValueError: if the file is not such a list; or AssetError, if the assets cannot be fetched.
    """
    found = reactome() if path is None else _read(Path(path))
    return [graph for graph in found if smallest <= len(graph) <= largest]


def reactome() -> list[Graph]:
    """Builds the graphs of Reactome's human pathways of the lowest level that have at least as many edges as genes."""
    members = _reactome_members()
    genes, known = set().union(*members.values()), set()
    edges: dict[str, list[tuple[str, str, str]]] = collections.defaultdict(list)
    with graphs.open_text(assets.path("regulon-enrichment", "PathwayCommons9.All.hgnc.sif.gz")) as file:
        for line in file:
            a, kind, b = line.rstrip("\n").split("\t")
            known.update((a, b))
            if kind in RELATIONS and a in genes and b in genes:
                edges[a].append((a, kind, b))
    built = []
    for name, proteins in sorted(members.items()):
        ids = proteins & known
        # Reversed, so that of several relations of a pair the first in the file is kept.
        inside = ((a, kind, b) for gene in sorted(ids) for a, kind, b in reversed(edges[gene]) if b in ids)
        rows = list({(a, b): (a, kind, b) for a, kind, b in inside}.values())
        if len(rows) >= len(ids):
            built.append(
                graphs.from_edges(
                    [(a, b) for a, _, b in rows], nodes=sorted(ids), types=[kind for _, kind, _ in rows], name=name
                )
            )
    return built


def knowledge_graph(name: str) -> Graph:
    """Returns a small knowledge graph, ``nations`` (14 nodes) or ``umls`` (135), from the asset ``pykeen``.

    Raises:
      ValueError: if there is none of this name; or AssetError, if the asset cannot be fetched.
    """
    if name not in ("nations", "umls"):
        raise ValueError(f"name must be 'nations' or 'umls', got {name!r}")
    rows = []
    for split in ("train", "valid", "test"):
        with graphs.open_text(assets.path("pykeen", f"{name}/{split}.txt")) as file:
            rows.extend(line.rstrip("\n").split("\t") for line in file)
    return graphs.from_edges([(a, b) for a, _, b in rows], types=[kind for _, kind, _ in rows], name=name)


def _read(path: Path) -> list[Graph]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    if not isinstance(rows, list) or not all({"id", "genes", "edges"} <= row.keys() for row in rows):
        raise ValueError(f"{path} must be a list of graphs with 'id', 'genes' and 'edges'")
    return [
        graphs.from_edges(
            [(a, b) for a, _, b in row["edges"]],
            nodes=row["genes"],
            types=[kind for _, kind, _ in row["edges"]],
            name=row["id"],
        )
        for row in rows
    ]


def _reactome_members() -> dict[str, set[str]]:
    """Returns the gene symbols of each human pathway.

    The assets have no table of symbols. The first half of UniProt's entry name is the symbol for most proteins
    (``EGFR_HUMAN``); where it is not (``P53_HUMAN``), no edge names it, and the protein is left out.
    """
    symbols: dict[str, str] = {}
    with graphs.open_text(assets.path("binn", "uniprotkb_human_2025_01_21.tsv")) as file:
        for row in csv.DictReader(file, delimiter="\t"):
            symbol, _, species = row["Entry Name"].partition("_")
            if species == "HUMAN":
                symbols[row["Entry"]] = symbol
    members: dict[str, set[str]] = collections.defaultdict(set)
    with graphs.open_text(assets.path("binn", "uniprot_2_reactome_2025_01_14.txt")) as file:
        for line in file:
            protein, pathway, *_ = line.split("\t")
            if pathway.startswith("R-HSA-") and protein in symbols:
                members[pathway].add(symbols[protein])
    return members
