"""A reaction as the tokens of the real ALBERT of rxnmapper (Schwaller et al., 2021), each of them masked in turn."""

import re
from pathlib import Path

import numpy as np

#: The first example of rxnmapper's page: an aromatic substitution of fluoride by a thiol.
REACTION = "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F"

_ATOM_OR_BOND = r"\[[^\]]+\]|Br?|Cl?|[NOSPFIbcnosp()=#.+\-\\/:~@?*$]|>>?|%[0-9]{2}|[0-9]"


def masked_tokens(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows ``(n, n + 2)``, the i-th with token i + 1 masked, and the n ids that are masked in them."""
    vocabulary = {word: i for i, word in enumerate((folder / "vocab.txt").read_text().split("\n"))}
    words = re.findall(_ATOM_OR_BOND, REACTION)
    assert "".join(words) == REACTION
    ids = np.array([vocabulary[word] for word in ["[CLS]", *words, "[SEP]"]], np.int32)
    rows = np.repeat(ids[None], len(words), axis=0)
    np.fill_diagonal(rows[:, 1:], vocabulary["[MASK]"])
    return rows, ids[1:-1]


def at_masks(logits: np.ndarray) -> np.ndarray:
    """Returns the scores ``(n, v)`` at the masked token of each row."""
    return logits[np.arange(len(logits)), np.arange(1, len(logits) + 1)]
