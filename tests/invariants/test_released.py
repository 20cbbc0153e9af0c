"""Invariant 9: a model directory of each released version still loads and answers the same.

The folders beside this file are written by scripts/store_released_models.py, once per release.
"""

import json
from pathlib import Path

import pytest

from transduce import __version__
from transduce.predict import Predictor

RELEASED = Path(__file__).parent / "released"
STORED = sorted(path.relative_to(RELEASED) for path in RELEASED.glob("*/*/manifest.json"))


def test_this_version_is_stored() -> None:
    assert (RELEASED / __version__ / "answers.json").is_file(), "run scripts/store_released_models.py before a release"


@pytest.mark.parametrize("place", STORED, ids=str)
def test_a_stored_model_answers_as_it_did(place: Path) -> None:
    folder = RELEASED / place.parent
    expected = json.loads((folder.parent / "answers.json").read_text(encoding="utf-8"))[folder.name]
    predictions = Predictor.load(folder).predict([answer["source"] for answer in expected])
    assert [prediction.text for prediction in predictions] == [answer["text"] for answer in expected]
    assert [prediction.score for prediction in predictions] == pytest.approx([answer["score"] for answer in expected], abs=1e-4)
