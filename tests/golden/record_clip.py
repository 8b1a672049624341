"""Records torch's numbers for CLIP: ``python -m tests.golden.record_clip`` (needs the oracle extra).

``clip/`` is a tiny random model as transformers saves it, and ``expected.npz`` the pixels of two pictures, the texts,
and what the model computes of them.
"""

import shutil
from pathlib import Path

import numpy as np

from tests.models import tiny_clip

HERE = Path(__file__).parent / "clip"


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    model = tiny_clip.save_tiny_clip(HERE)
    peer = tiny_clip.processor(size={"shortest_edge": tiny_clip.IMAGE}, crop_size=tiny_clip.IMAGE)
    pixels = np.stack(peer(tiny_clip.pictures())["pixel_values"]).transpose(0, 2, 3, 1)
    ids, mask = tiny_clip.tokens()
    recorded = tiny_clip.run_torch(model, ids, mask, pixels)
    np.savez_compressed(HERE / "expected.npz", ids=ids, mask=mask, pixels=pixels, **recorded._asdict())


if __name__ == "__main__":
    main()
