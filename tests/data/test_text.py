"""Codecs: they learn, come back, agree with themselves, survive the disk, and know what is lost."""

import io
import random

import numpy as np
import pytest
import sentencepiece

from transduce.data.codec import fit_codec, load_codec
from transduce.data.report import Lossless
from transduce.data.sampling import evenly_sampled
from transduce.data.text import (
    BytesConfig,
    CharactersConfig,
    SentencePieceConfig,
    WordsConfig,
)
from transduce.data.tokens import round_trip
from transduce.errors import CheckpointError, ConfigError, DataError

WORDS = ["ein", "zwei", "drei", "vier", "fünf", "sechs", "der", "die", "das", "Haus", "läuft", "schnell", "中文", "слово", "a", "b"]
HARD = [
    "",
    " ",
    "  a  b ",
    "a ",
    " a",
    "tab\there",
    "line\nend\r\n",
    "\u2028\x0b\x1c",
    "😀🇩🇪",
    "<s> </s> <unk> <pad> <0x0A>",
    "e\u0301 é",
    "ﬁ Å",
]


def corpus(count: int = 300) -> list[str]:
    rng = random.Random(3)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 9))) for _ in range(count)]


CONFIGS = [
    SentencePieceConfig(vocabulary_size=400),
    SentencePieceConfig(vocabulary_size=330, model_type="bpe"),
    CharactersConfig(),
    BytesConfig(),
    WordsConfig(),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: "-".join(str(value) for value in list(config.model_dump().values())[:2]))
def codec(request):
    return fit_codec(request.param, iter(corpus()), seed=1)


def test_own_data_comes_back(codec):
    assert round_trip(codec, corpus()) == Lossless(checked=300, lossy=0)


def test_encode_many_is_encode_of_each(codec):
    texts = [*HARD, *corpus(20)]
    for one, many in zip(map(codec.encode, texts), codec.encode_many(texts), strict=True):
        assert one.dtype == many.dtype == np.int32
        assert one.tolist() == many.tolist()
    assert codec.encode_many([]) == []


def test_special_ids_come_first_and_say_nothing(codec):
    vocabulary = codec.vocabulary
    assert (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2, 3)
    ids = codec.encode("ein Haus").tolist()
    assert min(ids) > 2
    assert max(ids) < vocabulary.size
    assert codec.decode([1, *ids, 2, 0, 0]) == "ein Haus"
    assert codec.decode([]) == ""


def test_pieces_are_one_per_id(codec):
    ids = codec.encode("das Haus").tolist()
    assert len(codec.pieces(ids)) == len(ids)
    assert codec.pieces([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert len(set(codec.pieces(range(codec.vocabulary.size)))) == codec.vocabulary.size


def test_it_survives_the_disk(codec, tmp_path):
    codec.save(tmp_path / "codec")
    again = load_codec(tmp_path / "codec")
    assert (again.kind, again.digest, again.vocabulary) == (codec.kind, codec.digest, codec.vocabulary)
    for text in HARD:
        assert again.encode(text).tolist() == codec.encode(text).tolist()


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1], BytesConfig()], ids=["unigram", "bpe", "bytes"])
def test_nothing_is_lost_with_bytes_below(config):
    codec = fit_codec(config, corpus(), seed=1)
    rng = random.Random(0)
    wild = [
        "".join(chr(rng.choice([rng.randint(1, 0x2FF), rng.randint(0x3000, 0xD7FF), rng.randint(0x1F300, 0x1F6FF)])) for _ in range(12))
        for _ in range(300)
    ]
    assert round_trip(codec, HARD + wild).lossy == 0


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_training_is_deterministic(model_type):
    config = SentencePieceConfig(vocabulary_size=350, model_type=model_type, max_training_texts=100)
    digests = {fit_codec(config, iter(corpus()), seed=seed).digest for seed in (1, 1, 2)}
    assert len(digests) == 2


def test_too_large_and_too_small_vocabularies():
    assert fit_codec(SentencePieceConfig(vocabulary_size=20_000), corpus(20), seed=1).vocabulary.size < 600
    with pytest.raises(ConfigError, match="262 pieces"):
        fit_codec(SentencePieceConfig(vocabulary_size=262), corpus(), seed=1)


def test_nothing_to_learn_from():
    for config in (SentencePieceConfig(), CharactersConfig(), WordsConfig(min_count=9)):
        with pytest.raises(DataError):
            fit_codec(config, [], seed=1)


def test_line_ends_and_tabs_inside_texts_do_not_stop_training():
    codec = fit_codec(SentencePieceConfig(vocabulary_size=300), ["def f():\n\treturn 1"] * 20, seed=1)
    assert codec.decode(codec.encode("def f():\n\treturn 1").tolist()) == "def f():\n\treturn 1"


def foreign_model(**options: int) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus()), model_writer=model, vocab_size=40, minloglevel=2, **options)
    return model.getvalue()


@pytest.mark.parametrize("options", [{}, {"pad_id": 3}, {"unk_id": 2, "bos_id": -1, "eos_id": 0}, {"bos_id": 1, "eos_id": -1}])
def test_a_brought_model_is_renumbered(tmp_path, options):
    (tmp_path / "own.model").write_bytes(foreign_model(**options))
    codec = fit_codec(SentencePieceConfig(model_file=tmp_path / "own.model"), (), seed=1)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "own.model"))
    text = "das Haus läuft"
    assert codec.pieces(codec.encode(text).tolist()) == plain.encode(text, out_type=str)
    assert codec.decode([1, *codec.encode(text).tolist(), 2]) == text
    assert codec.encode("Ω").tolist()[-1] == codec.vocabulary.unk_id
    missing = sum(number < 0 for number in (plain.pad_id(), plain.bos_id(), plain.eos_id()))
    assert codec.vocabulary.size == plain.get_piece_size() + missing
    assert len(set(codec.pieces(range(codec.vocabulary.size)))) == codec.vocabulary.size


def test_a_brought_model_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"none.model: no such file"):
        fit_codec(SentencePieceConfig(model_file=tmp_path / "none.model"), (), seed=1)
    (tmp_path / "text.model").write_bytes(b"hello")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        fit_codec(SentencePieceConfig(model_file=tmp_path / "text.model"), (), seed=1)


def test_rare_symbols_are_unknown_and_seen_as_lossy():
    characters = fit_codec(CharactersConfig(min_count=2), ["aab", "ab", "c"], seed=1)
    assert characters.characters == ("a", "b")
    assert characters.decode(characters.encode("abc").tolist()) == "ab\ufffd"
    words = fit_codec(WordsConfig(vocabulary_size=6), ["b a a", "b c a"], seed=1)
    assert words.words == ("a", "b")
    assert words.decode(words.encode("a c  b").tolist()) == "a <unk> b"
    assert round_trip(words, ["a b", "a  b", "c"]) == Lossless(checked=3, lossy=2, example="a  b")


def test_damaged_codec_folders(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(tmp_path)
    (tmp_path / "codec.json").write_text('{"kind": "sentencepiece"}')
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(tmp_path)
    (tmp_path / "codec.json").write_text('{"kind": "phonemes"}')
    with pytest.raises(CheckpointError, match="unknown kind 'phonemes'"):
        load_codec(tmp_path)


def test_even_samples():
    texts = [str(number) for number in range(10_000)]
    sample = evenly_sampled(texts, 1000, seed=1)
    numbers = [int(text) for text in sample]
    assert 500 <= len(sample) <= 1000
    assert numbers == sorted(numbers)
    assert abs(np.mean(numbers) - 5000) < 400
    assert sample == evenly_sampled(iter(texts), 1000, seed=1)
    assert evenly_sampled(texts, 10_000, seed=1) == texts
