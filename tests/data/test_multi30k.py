"""Multi30k English to German, as the results page trains on it: nothing lost, padding below 5 %, a quick second start."""

import time
from pathlib import Path

import pytest

from transduce.data.loader import DataConfig, Loader, prepare

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "multi30k"


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"Multi30k is not at {FOLDER}")
def test_padding_losslessness_and_second_start(tmp_path):
    config = DataConfig(
        train={"source": str(FOLDER / "train.en"), "target": str(FOLDER / "train.de")},
        valid={"source": str(FOLDER / "val.en"), "target": str(FOLDER / "val.de")},
        joint_vocabulary=True,
        source_codec={"kind": "sentencepiece", "vocabulary_size": 8000, "max_training_texts": 24_000},
        cache_dir=tmp_path,
    )
    begin = time.perf_counter()
    data = prepare(config, seed=1)
    first = time.perf_counter() - begin
    assert data.source_codec.vocabulary.size == 8000
    assert (len(data.train), len(data.valid_records)) == (29_000, 1014)
    assert (data.lossless[0].lossy, data.lossless[1].lossy) == (0, 0)
    assert max(data.train.padding_share(epoch) for epoch in range(3)) < 0.035
    larger = config.model_copy(update={"max_tokens_per_batch": 8192})
    codecs = (data.source_codec, data.target_codec)
    assert Loader(data.train.stores, config=larger, codecs=codecs, seed=1).padding_share(0) < 0.05
    begin = time.perf_counter()
    prepare(config, seed=1)
    assert time.perf_counter() - begin < first / 4
