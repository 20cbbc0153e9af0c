"""Dates as people write them, in 18 locales, with their ISO 8601 form.

In: a seed and how many pairs. Out: train.tsv, valid.tsv and test.tsv (`written date TAB 2021-05-03`), the same for the same seed.
Formats, month names and weekdays come from Unicode CLDR through Babel; PATTERNS adds what people write besides.

Decision to question: a source carries no locale tag, so every source must be readable without one. All-numeric forms
therefore appear only where order cannot be misread (year first with four digits, day above 12, or day equal to month).
Years run from 1950 to 2049, so a two-digit year below PIVOT means 20xx, from PIVOT on 19xx; it never stands first.
The splits share no calendar date, hence no string.
"""

import argparse
import datetime
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from babel import Locale

LOCALES = ("en_US", "en_GB", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "pl", "cs", "fi", "tr", "ru", "ja", "zh", "ko")
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
PIVOT = 50
SPLITS = ("train", "valid", "test")

# CLDR letters: d day, M month, y year, E weekday; `O` is ours: the day as an ordinal. Text stands in quotes, '' is an apostrophe.
PATTERNS = {
    "en_US": ("MMMM O, y", "MMM O y", "EEE, MMM d, y", "MMMM d ''yy", "EEE M/d/y", "M-d-y"),
    "en_GB": ("EEE, O 'of' MMMM ''yy", "'the' O 'of' MMMM y", "O MMMM y", "EEEE 'the' O 'of' MMMM y", "O MMM yy", "d.M.yy"),
    "de": ("'am' d. MMMM y", "EEE, d. MMM y", "EEEE, 'den' d. MMMM y", "d. MMMM ''yy", "d.M.y"),
    "fr": ("'le' d MMMM y", "'le' EEEE d MMMM y", "EEE d MMM y", "'le' O MMMM y"),
    "es": ("'el' d 'de' MMMM 'de' y", "EEE d MMM y", "d 'de' MMMM 'del' y"),
    "it": ("'il' d MMMM y", "EEE d MMM y", "EEEE, O MMMM y"),
    "pt": ("O 'de' MMMM 'de' y", "EEE, d MMM y", "'em' d 'de' MMMM 'de' y"),
    "nl": ("EEE d MMM y", "d MMMM ''yy", "'op' d MMMM y"),
    "sv": ("'den' d MMMM y", "EEE d MMM y", "d/M y"),
    "da": ("'den' d. MMMM y", "EEE d. MMM y", "d/M-y"),
    "pl": ("d MMMM y 'r.'", "EEE, d MMM y", "d.M.y"),
    "cs": ("EEE d. MMMM y", "'dne' d. MMMM y"),
    "fi": ("EEE d. MMMM y", "EEEE d. MMMM y"),
    "tr": ("d MMM y EEE", "d MMMM ''yy"),
    "ru": ("d MMMM y", "d MMMM y 'года'", "EEE, d MMM y"),
    "ja": ("y年M月d日(EEE)", "y/M/d", "y年MM月dd日"),
    "zh": ("y年M月d号", "y-M-d", "y年M月d日 EEE"),
    "ko": ("y년 M월 d일", "y.M.d", "y년 M월 d일(EEE)"),
}
ACCENTS_OFTEN_LEFT_OUT = frozenset(LOCALES) - {"ru", "ja", "zh", "ko"}
TOKEN = re.compile(r"''|'[^']*'|([a-zA-Z])\1*|[^a-zA-Z']+")


class Part(NamedTuple):
    """A piece of a written date. kind: day, month, name (of the month), year, weekday or text."""

    kind: str
    text: str


class Pair(NamedTuple):
    """One example."""

    source: str
    target: str


@cache
def patterns_of(locale: str) -> tuple[str, ...]:
    """The four CLDR formats of a locale and those of PATTERNS. A two-digit year that stands first is given four digits."""
    formats = Locale.parse(locale).date_formats
    found = [formats[width].pattern for width in ("short", "medium", "long", "full")]
    return tuple(pattern.replace("yy", "y", 1) if pattern.startswith("yy") else pattern for pattern in (*found, *PATTERNS[locale]))


@cache
def month_names(locale: str) -> dict[int, tuple[str, str]]:
    """Month -> (abbreviated, wide), as they stand inside a date ("марта", not "март")."""
    names = Locale.parse(locale).months["format"]
    return {month: (names["abbreviated"][month], names["wide"][month]) for month in range(1, 13)}


@cache
def names_by_month() -> dict[int, frozenset[str]]:
    """Every plain spelling of each month in all locales. Raises ValueError when one spelling means two months."""
    found: dict[int, set[str]] = {month: set() for month in range(1, 13)}
    for locale in LOCALES:
        for month, names in month_names(locale).items():
            found[month] |= {plain(name) for name in names}
    seen: dict[str, int] = {}
    for month, names in found.items():
        for name in names:
            if seen.setdefault(name, month) != month:
                raise ValueError(f"{name!r} is month {month} in one locale and {seen[name]} in another")
    return {month: frozenset(names) for month, names in found.items()}


def plain(name: str) -> str:
    """Lower case, no dot, no accents: what is left of a month name in a hurry."""
    return without_accents(name).casefold().strip(". ")


def without_accents(text: str) -> str:
    """`März` -> `Marz`. Letters that Unicode does not decompose (`ł`, `ı`) stay."""
    letters = (letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", "".join(letters))


def written(pattern: str, date: datetime.date, locale: str) -> list[Part]:
    """The date in a CLDR pattern, as parts."""
    return [part_of(match.group(), date, locale) for match in TOKEN.finditer(pattern)]


def part_of(token: str, date: datetime.date, locale: str) -> Part:
    """One token of a pattern: a field with its width, or text."""
    match token[0], len(token):
        case "d", width:
            return Part("day", f"{date.day:0{width}}")
        case "O", _:
            return Part("day", ordinal(date.day, locale))
        case "M" | "L", 1 | 2 as width:
            return Part("month", f"{date.month:0{width}}")
        case "M" | "L", width:
            return Part("name", month_names(locale)[date.month][width > 3])
        case "y", width:
            return Part("year", f"{date.year % 100:02}" if width == 2 else str(date.year))
        case "E" | "c" as letter, width:
            names = Locale.parse(locale).days["format" if letter == "E" else "stand-alone"]
            return Part("weekday", names["wide" if width > 3 else "abbreviated"][date.weekday()])
    return Part("text", "'" if token == "''" else token.strip("'").replace("\u202f", " "))


def ordinal(day: int, locale: str) -> str:
    """5 -> `5th`; French, Italian, Spanish and Portuguese count only the first of the month."""
    if locale.startswith("en"):
        return f"{day}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10 if day not in (11, 12, 13) else 0, 'th') }"
    if day == 1:
        return {"fr": "1er", "it": "1º", "es": "1º", "pt": "1º"}.get(locale, "1")
    return str(day)


def unambiguous(parts: list[Part], date: datetime.date) -> bool:
    """Whether a reader who does not know the locale finds day and month: see the decision above."""
    kinds = [part.kind for part in parts if part.kind in ("day", "month", "name", "year")]
    return "name" in kinds or kinds[0] == "year" or date.day > 12 or date.day == date.month


def noisy(parts: list[Part], locale: str, rng: random.Random) -> str:
    """The parts as one string, with the slips of people: about half of all dates get none."""
    if rng.random() < 0.15:
        parts = shorten_year(parts, rng)
    if rng.random() < 0.12:
        parts = [misspelt(part, rng) for part in parts]
    if rng.random() < 0.10:
        parts = [respaced(part, parts, rng) for part in parts]
    text = "".join(part.text for part in parts)
    if locale in ACCENTS_OFTEN_LEFT_OUT and rng.random() < 0.10:
        text = without_accents(text)
    if rng.random() < 0.06:
        text = without_joints(text)
    if rng.random() < 0.06:
        text = re.sub(r"([^\W\d_])\.|,(?=\s)", r"\1", text)  # full stops behind letters, commas before spaces
    draw = rng.random()
    text = text.lower() if draw < 0.12 else text.upper() if draw < 0.18 else text
    return " ".join(text.split())


def shorten_year(parts: list[Part], rng: random.Random) -> list[Part]:
    """2008 -> 08 or '08 where the year stands behind day and month."""
    if [part.kind for part in parts if part.kind in ("day", "month", "name", "year")][-1] != "year" or "'" in {part.text for part in parts}:
        return parts
    mark = rng.choice(("", "'"))
    return [Part("year", mark + part.text[-2:]) if part.kind == "year" else part for part in parts]


def misspelt(part: Part, rng: random.Random) -> Part:
    """A weekday or a month name with one slip: two letters swapped, one lost, or one doubled. Short names stay: `jun` is close to `jul`."""
    if part.kind not in ("weekday", "name") or len(part.text) < 5 or not part.text.isalpha():
        return part
    at, word = rng.randrange(1, len(part.text) - 1), part.text
    slipped = rng.choice((word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :], word[: at + 1] + word[at:]))
    if part.kind == "name" and not still_one_month(word, slipped):
        return part
    return Part(part.kind, slipped)


def still_one_month(word: str, slipped: str) -> bool:
    """Whether a misspelt name is at least two edits away from every name of all other months."""
    others = (name for names in names_by_month().values() if plain(word) not in names for name in names)
    return all(edits(plain(slipped), name) > 1 for name in others)


@cache
def edits(left: str, right: str) -> int:
    """Edit distance with swaps of neighbours (Damerau 1964), by the usual table."""
    rows = [list(range(len(right) + 1))]
    for i, letter in enumerate(left, start=1):
        row = [i]
        for j, other in enumerate(right, start=1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and left[i - 2] == other and letter == right[j - 2]:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


def respaced(part: Part, parts: list[Part], rng: random.Random) -> Part:
    """Other separators of an all-numeric date, or a wide space."""
    if part.kind != "text":
        return part
    if not any(other.kind == "name" for other in parts) and part.text.strip() in (".", "/", "-"):
        return Part("text", rng.choice((".", "/", "-", " ", " - ", " / ", ". ")))
    return Part("text", part.text.replace(" ", "  ") if rng.random() < 0.5 else part.text + " ")


def without_joints(text: str) -> str:
    """No space between a digit and a letter, nor behind punctuation and a letter: `3 März 2021` -> `3März2021`. Digits stay apart."""
    return re.sub(r"(?<=\d)\s+(?=[^\W\d_])|(?<=[^\W\d_])\s+(?=\d)|(?<=[^\W\d_][.,])\s+", "", text)


def pairs(seed: int, count: int, split: str) -> Iterator[Pair]:
    """`count` different written dates of one split, reproducible from the seed. The splits share no calendar date."""
    rng = random.Random(f"{seed}/{split}")
    dates, seen = dates_of(split, seed), set[str]()
    while len(seen) < count:
        date, locale = rng.choice(dates), rng.choice(LOCALES)
        parts = written(rng.choice(patterns_of(locale)), date, locale)
        if not unambiguous(parts, date):
            continue
        source = noisy(parts, locale, rng)
        if source not in seen:
            seen.add(source)
            yield Pair(source, date.isoformat())


@cache
def dates_of(split: str, seed: int) -> list[datetime.date]:
    """The calendar dates of a split: of 36,525 days 90 % for training, 5 % each for validation and test."""
    days = [FIRST + datetime.timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    random.Random(f"{seed}/dates").shuffle(days)
    tenth = len(days) // 20
    return {"train": days[2 * tenth :], "valid": days[:tenth], "test": days[tenth : 2 * tenth]}[split]


def generate(folder: Path, *, seed: int, sizes: dict[str, int]) -> dict[str, Path]:
    """Write one TSV file per split into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    names_by_month()
    paths = {split: folder / f"{split}.tsv" for split in SPLITS}
    for split, path in paths.items():
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{pair.source}\t{pair.target}\n" for pair in pairs(seed, sizes[split], split))
    return paths


def main() -> None:
    """Command line: `python examples/dates/generate.py work/dates --seed 1`."""
    parser = argparse.ArgumentParser(description="Write train.tsv, valid.tsv and test.tsv with dates and their ISO 8601 form.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--valid", type=int, default=500)
    parser.add_argument("--test", type=int, default=2_000)
    words = parser.parse_args()
    sizes = {"train": words.train, "valid": words.valid, "test": words.test}
    for split, path in generate(words.folder, seed=words.seed, sizes=sizes).items():
        print(f"{path}: {sizes[split]:,} pairs")


if __name__ == "__main__":
    main()
