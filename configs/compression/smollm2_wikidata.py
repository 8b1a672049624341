"""SmolLM2-135M-Instruct (Q4_1), 2,000 facts of Wikidata: the whole study of The Cost of Compression.

python -m experiments.compression smollm2_wikidata --facts FILE --texts FOLDER --chats FILE
"""

from experiments.compression_config import Pretrained


def get_config() -> Pretrained:
    return Pretrained()
