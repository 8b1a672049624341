"""SmolLM2-135M-Instruct (Q4_1), 2,000 facts of Wikidata: the whole study of The Cost of Compression.

    python -m experiments.compression smollm2_wikidata --facts FILE --texts FOLDER --chats FILE

It has not been run yet, so that there is no figure to expect. About 170 points of 11 TFLOP each (2,000 facts of 16
tokens, eight passages in overlapping windows, 20 chats) and 63 passes of calibration data: a night on two quiet cores.
A run that is stopped goes on with the next point. The paper has no decoder of this size.
"""

from experiments.compression_config import Pretrained


def get_config() -> Pretrained:
    return Pretrained()
