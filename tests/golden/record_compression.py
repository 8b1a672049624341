"""Records what the released code of Wanda, SparseGPT and GPTQ makes of small kernels (needs the oracle extra).

    python -m tests.golden.record_compression ~/wanda ~/gptq

The folders are checkouts of locuslab/wanda at 8e8fc87, which holds SparseGPT too, and of IST-DASLab/gptq at 2d65066.
Weights are torch's, ``(out, in)``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "compression.npz"
INPUTS, OUTPUTS, ROWS, TOKENS = 32, 24, 6, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wanda", type=Path)
    parser.add_argument("gptq", type=Path)
    args = parser.parse_args()
    import torch

    torch.cuda.synchronize = lambda: None  # the released code waits for a GPU
    sys.path[:0] = [str(args.wanda / "lib"), str(args.gptq)]
    from gptq import GPTQ
    from layerwrapper import WrappedGPT
    from quant import Quantizer
    from sparsegpt import SparseGPT

    rng = np.random.default_rng(0)
    x = (rng.normal(size=(ROWS, TOKENS, INPUTS)) @ rng.normal(size=(INPUTS, INPUTS)) / INPUTS**0.5).astype(np.float32)
    weight = rng.normal(size=(OUTPUTS, INPUTS)).astype(np.float32)
    found = {"x": x, "weight": weight}

    def treated(method: Any, run: Any) -> Any:
        layer = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
        layer.weight.data = torch.tensor(weight)
        wrapped = method(layer)
        for row in torch.tensor(x):
            wrapped.add_batch(row[None], None)
        run(wrapped)
        return layer.weight.data.numpy() if method is not WrappedGPT else wrapped.scaler_row.numpy()

    def quantised(group: int, symmetric: bool) -> Any:
        def run(wrapped: Any) -> None:
            wrapped.quantizer = Quantizer()
            wrapped.quantizer.configure(4, perchannel=True, sym=symmetric)
            # With blocks as large as groups, scales are those of the weights when their turn comes.
            wrapped.fasterquant(blocksize=8, groupsize=group)

        return run

    found["wanda"] = treated(WrappedGPT, lambda wrapped: None)
    found["sparsegpt"] = treated(SparseGPT, lambda wrapped: wrapped.fasterprune(0.5, blocksize=16))
    found["sparsegpt_2_4"] = treated(SparseGPT, lambda wrapped: wrapped.fasterprune(0.5, 2, 4, blocksize=16))
    found["gptq"] = treated(GPTQ, quantised(-1, symmetric=False))
    found["gptq_symmetric"] = treated(GPTQ, quantised(-1, symmetric=True))
    found["gptq_groups"] = treated(GPTQ, quantised(8, symmetric=False))
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
