"""Records torch's logits for the Mamba tests: ``python -m tests.golden.record_mamba`` (needs the oracle extra).

The folder is a tiny random model as transformers saves it, and ``expected.npz``: the logits of each row of
:func:`tests.models.tiny_decoders.rows`, computed without padding.
"""

import shutil
from pathlib import Path

import numpy as np

from tests.models import tiny_decoders, tiny_mambas

FOLDER = Path(__file__).parent / "mamba"


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    model = tiny_mambas.save_tiny_mamba(FOLDER)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    logits = tiny_decoders.torch_logits(model, tiny_decoders.rows())
    np.savez_compressed(FOLDER / "expected.npz", **{f"logits_{i}": row for i, row in enumerate(logits)})


if __name__ == "__main__":
    main()
