"""Records torch's numbers for T5: ``python -m tests.golden.record_t5`` (needs the oracle extra).

``t5/v1_0`` and ``t5/v1_1`` are tiny random models as transformers saves them, and their ``expected.npz`` the encoder's
hidden states and the decoder's logits.
"""

import shutil
from pathlib import Path

import numpy as np

from tests.models import tiny_t5

HERE = Path(__file__).parent / "t5"
VERSIONS = {"v1_0": {}, "v1_1": {**tiny_t5.V1_1, "untied": True, "seed": 1}}


def main() -> None:
    for name, settings in VERSIONS.items():
        shutil.rmtree(HERE / name, ignore_errors=True)
        model = tiny_t5.save_tiny_t5(HERE / name, **settings)
        recorded = tiny_t5.run_torch(model, *tiny_t5.inputs())
        np.savez_compressed(HERE / name / "expected.npz", **recorded._asdict())


if __name__ == "__main__":
    main()
