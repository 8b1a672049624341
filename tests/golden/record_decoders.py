"""Records torch's logits for the decoder tests: ``python -m tests.golden.record_decoders`` (needs the oracle extra).

Each folder of ``decoders/`` is a tiny random model as transformers saves it, and ``expected.npz``: the logits of each
row of :func:`tests.models.tiny_decoders.rows`, computed without padding.
"""

import shutil
from pathlib import Path

import numpy as np

from tests.models import tiny_decoders

HERE = Path(__file__).parent / "decoders"


def main() -> None:
    for seed, model_type in enumerate(sorted(tiny_decoders.SHAPES)):
        folder = HERE / model_type
        shutil.rmtree(folder, ignore_errors=True)
        model = tiny_decoders.save_tiny_decoder(folder, model_type, seed=seed)
        (folder / "generation_config.json").unlink(missing_ok=True)
        logits = tiny_decoders.torch_logits(model, tiny_decoders.rows())
        np.savez_compressed(folder / "expected.npz", **{f"logits_{i}": row for i, row in enumerate(logits)})


if __name__ == "__main__":
    main()
