"""The date example: what it generates is reproducible, readable without a locale tag, and kept apart by split."""

import datetime
import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def dates() -> Iterator[ModuleType]:
    """examples/dates/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("dates_generate", ROOT / "examples" / "dates" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dates_generate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["dates_generate"]


def clean(dates: ModuleType, pattern: str, date: datetime.date, locale: str) -> str:
    return "".join(part.text for part in dates.written(pattern, date, locale))


def test_known_dates_are_written_as_people_write_them(dates: ModuleType) -> None:
    assert clean(dates, "d. MMMM y", datetime.date(2021, 3, 3), "de") == "3. März 2021"
    assert clean(dates, "'le' d MMMM y", datetime.date(1999, 5, 5), "fr") == "le 5 mai 1999"
    assert clean(dates, "y年M月d日", datetime.date(2021, 5, 3), "ja") == "2021年5月3日"
    assert clean(dates, "EEE, O 'of' MMMM ''yy", datetime.date(2008, 6, 5), "en_GB") == "Thu, 5th of June '08"


@pytest.mark.parametrize("locale", ["en_US", "de", "fr", "fi", "ru", "ko", "tr"])
def test_our_rendering_of_cldr_patterns_equals_babel(dates: ModuleType, locale: str) -> None:
    from babel import Locale
    from babel.dates import format_date

    for day in (1, 11, 23):
        date = datetime.date(2013, day % 12 + 1, day)
        for pattern in (Locale.parse(locale).date_formats[width].pattern for width in ("medium", "long", "full")):
            assert clean(dates, pattern, date, locale) == format_date(date, pattern, locale=locale).replace("\u202f", " ")


@pytest.mark.parametrize("text", ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "22nd", "31st"])
def test_english_ordinals(dates: ModuleType, text: str) -> None:
    assert dates.ordinal(int(text[:-2]), "en_GB") == text


def test_at_least_twelve_locales_and_no_name_for_two_months(dates: ModuleType) -> None:
    assert len(dates.LOCALES) >= 12
    names = dates.names_by_month()
    assert sum(len(group) for group in names.values()) == len(frozenset().union(*names.values()))


def test_the_same_seed_gives_the_same_files_and_another_seed_others(dates: ModuleType, tmp_path: Path) -> None:
    sizes = {"train": 300, "valid": 40, "test": 40}
    first = dates.generate(tmp_path / "a", seed=1, sizes=sizes)
    second = dates.generate(tmp_path / "b", seed=1, sizes=sizes)
    other = dates.generate(tmp_path / "c", seed=2, sizes=sizes)
    for split, size in sizes.items():
        text = first[split].read_text(encoding="utf-8")
        assert text == second[split].read_text(encoding="utf-8") != other[split].read_text(encoding="utf-8")
        assert text.count("\n") == size


def test_splits_share_neither_a_calendar_date_nor_a_string(dates: ModuleType) -> None:
    found = {split: list(dates.pairs(1, 1000, split)) for split in dates.SPLITS}
    for one, two in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not {pair.source for pair in found[one]} & {pair.source for pair in found[two]}
        assert not {pair.target for pair in found[one]} & {pair.target for pair in found[two]}
    calendar = [set(dates.dates_of(split, 1)) for split in dates.SPLITS]
    assert sum(map(len, calendar)) == len(set().union(*calendar)) == (dates.LAST - dates.FIRST).days + 1


def test_one_written_date_never_means_two_days(dates: ModuleType) -> None:
    meanings: dict[str, set[str]] = {}
    for seed in (1, 2, 3):
        for pair in dates.pairs(seed, 4000, "train"):
            meanings.setdefault(pair.source, set()).add(pair.target)
    assert all(len(targets) == 1 for targets in meanings.values())


def test_all_numeric_forms_only_where_order_cannot_be_misread(dates: ModuleType) -> None:
    for day, month, expected in ((5, 3, False), (23, 3, True), (3, 3, True)):
        date = datetime.date(2008, month, day)
        for pattern, locale in (("d.M.y", "de"), ("M/d/yy", "en_US")):
            assert dates.unambiguous(dates.written(pattern, date, locale), date) is expected
        assert dates.unambiguous(dates.written("y/M/d", date, "ja"), date)


def test_a_misspelt_month_stays_away_from_every_other_month(dates: ModuleType) -> None:
    assert dates.still_one_month("september", "setpember")
    assert not dates.still_one_month("juni", "jui")
    rng = random.Random(1)
    slips = {dates.misspelt(dates.Part("name", "Februar"), rng).text for _ in range(50)}
    assert len(slips) > 5
    assert {dates.misspelt(dates.Part("name", "mai"), rng).text for _ in range(20)} == {"mai"}


def test_a_year_is_shortened_only_behind_day_and_month(dates: ModuleType) -> None:
    date = datetime.date(2008, 6, 5)
    rng = random.Random(1)
    assert "".join(part.text for part in dates.shorten_year(dates.written("y年M月d日", date, "ja"), rng)) == "2008年6月5日"
    short = {"".join(part.text for part in dates.shorten_year(dates.written("d MMMM y", date, "fr"), rng)) for _ in range(20)}
    assert short == {"5 juin 08", "5 juin '08"}


def test_noise_never_glues_digits_together(dates: ModuleType) -> None:
    assert dates.without_joints("3 März 2021") == "3März2021"
    assert dates.without_joints("March 3, 2021") == "March3, 2021"
    assert dates.without_joints("3 3 2021") == "3 3 2021"


def test_the_script_writes_what_it_says(tmp_path: Path) -> None:
    generator = str(ROOT / "examples" / "dates" / "generate.py")
    command = [sys.executable, generator, str(tmp_path), "--train", "20", "--valid", "5", "--test", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "20 pairs" in done.stdout
    for line in (tmp_path / "test.tsv").read_text(encoding="utf-8").splitlines():
        source, target = line.split("\t")
        assert source and datetime.date.fromisoformat(target)
