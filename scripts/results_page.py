"""docs/results.md, the results table of README.md and the plot of BLEU by source length, from the measured figures.

In: the records that results_text.py makes. Out: the three files. A figure that was not measured is printed as
"not measured yet", never left out and never typed by hand.

Decision to question: groups of source length hold about as many sentences each and depend on the sources alone, so that
the four models of the ladder share one plot, with 95 % intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from results_run import MISSING, Records

from transduce.metrics.by_length import LengthScore, score_by_length
from transduce.metrics.score import Score
from transduce.pictures import length_png

LADDER = {
    "multi30k-en-de-rnn-fixed": "fixed context vector (Sutskever 2014)",
    "multi30k-en-de-rnn-bahdanau": "additive attention (Bahdanau 2015)",
    "multi30k-en-de-rnn-luong": "general attention (Luong 2015)",
    "multi30k-en-de-transformer": "Transformer (Vaswani 2017)",
}
PLOT = "docs/pictures/bleu-by-length.png"
START, END = "<!-- results: written by scripts/results_text.py table -->", "<!-- end of results -->"


class Row(NamedTuple):
    """A row of the table. figure: from the `test` or `valid` group of a record to the number shown."""

    name: str
    label: str
    measure: str
    figure: Callable[[dict[str, Any]], float]
    floor: str


def value_of(metric: str) -> Callable[[dict[str, Any]], float]:
    """The value of one metric."""
    return lambda figures: float(figures[metric]["value"])


def word_error_rate(figures: dict[str, Any]) -> float:
    """Share of words with any wrong symbol, in %: 100 - exact match."""
    return 100 - value_of("exact_match")(figures)


ROWS = (
    *(
        Row(name, f"Multi30k en-de, {label}", "BLEU", value_of("bleu"), floor)
        for (name, label), floor in zip(LADDER.items(), ("≥ 15", "≥ 32", "≥ 32", "≥ 37"), strict=True)
    ),
    Row("multi30k-en-fr-transformer", "Multi30k en-fr, Transformer", "BLEU", value_of("bleu"), ""),
    Row("multi30k-de-en-transformer", "Multi30k de-en, Transformer", "BLEU", value_of("bleu"), ""),
    Row("g2p-eng-us", "Grapheme to phoneme, SIGMORPHON 2021 eng_us", "WER %", word_error_rate, "≤ 42 (baseline 41.94, best 37.4)"),
    Row("cmudict", "Grapheme to phoneme, CMUdict, 6,000 words", "PER %", value_of("per"), "≤ 7.5"),
    Row("scan-simple", "SCAN simple", "exact match %", value_of("exact_match"), "≥ 99"),
    Row("scan-length", "SCAN length", "exact match %", value_of("exact_match"), ""),
    Row("scan-addprim-jump", "SCAN add-jump", "exact match %", value_of("exact_match"), ""),
)


def bleu_by_length(sources: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """BLEU by words in the source, for JSON."""
    groups = score_by_length("bleu", sources, predictions=predictions, references=references, num_groups=5)
    return [{**asdict(group), "score": {"value": group.score.value, "details": dict(group.score.details)}} for group in groups]


def groups_of(record: dict[str, Any]) -> list[LengthScore]:
    """The groups that `bleu_by_length` made, read back."""
    groups = record["test"]["by_length"]
    scores = [Score("bleu", group["score"]["value"], "higher", group["score"]["details"]) for group in groups]
    return [LengthScore(**{**group, "score": score}) for group, score in zip(groups, scores, strict=True)]


def write_pages(records: Records, root: Path) -> list[Path]:
    """Write docs/results.md, the part of README.md between its two marks, and the plot. -> what was written."""
    page = root / "docs" / "results.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(results_markdown(records), encoding="utf-8")
    written = [page]
    readme = root / "README.md"
    if readme.exists():
        before, _, rest = readme.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        readme.write_text(f"{before}{START}\n{short_table(records)}\n{END}{after}", encoding="utf-8")
        written.append(readme)
    if LADDER.keys() & records.keys():
        written.append(plot_by_length(records, root / PLOT))
    return written


def short_table(records: Records) -> str:
    """Task, measure, figure and floor."""
    lines = ["| task | measure | test | floor set beforehand |", "|---|---|---|---|"]
    lines += [f"| {row.label} | {row.measure} | {shown(row, records, 'test')} | {row.floor} |" for row in ROWS]
    return "\n".join(lines)


def shown(row: Row, records: Records, split: str) -> str:
    """The figure with one decimal (two below 10 %), or that there is none."""
    if row.name not in records:
        return MISSING
    value = row.figure(records[row.name][split])
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def results_markdown(records: Records) -> str:
    """The whole page."""
    lines = [
        "# Results on real data",
        "",
        "Texts are on this page. [Speech](results-media.md#speech): from listen-attend-spell over the Transformer to the Conformer.",
        "[Captions](results-media.md#captions): from no attention over attention to the Transformer.",
        "[Tracks](results-tracks.md): LSTM and Transformer beside constant velocity and a Kalman filter.",
        "",
        "Written by `make results-text` (`python scripts/results_text.py list|run NAME...|all|table`); do not edit by hand.",
        "One run per row (g2p: three, predicting together).",
        "The checkpoint, the recipe and the length penalty were chosen on the validation set only.",
        "Multi30k: test_2016_flickr, 1,000 sentences, beam 5, sacreBLEU 13a on raw cased text.",
        "CMUdict: PER against the closest of a word's pronunciations; its validation column compares with the first one only.",
        "The data sets are not part of this repository.",
        "",
        "| task | measure | validation | test | floor set beforehand | training | machine |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        figures = f"{shown(row, records, 'valid')} | {shown(row, records, 'test')}"
        lines.append(f"| {row.label} | {row.measure} | {figures} | {row.floor} | {training_of(records.get(row.name))} |")
    lines += ["", "## BLEU by length of the source (en-de)", "", *length_table(records), "", "## Commands and signatures", ""]
    for name, record in sorted(records.items()):
        note = [f"- {record['note']}"] if "note" in record else []
        lines += [f"### {name}", "", "```", record["command"], "```", "", *details_of(record), *note, ""]
    return "\n".join(lines).rstrip() + "\n"


def training_of(record: dict[str, Any] | None) -> str:
    """Minutes, seed and machine: two cells."""
    if record is None:
        return f"{MISSING} | "
    kind = "bf16" if record["bf16"] else "no bf16 instructions"
    return f"{record['train_minutes']} min, seed {record['seed']} | {record['processor']}, {record['threads']} threads, {kind}"


def length_table(records: Records) -> list[str]:
    """One row per model of the ladder, one column per bucket."""
    measured = {name: label for name, label in LADDER.items() if name in records}
    if not measured:
        return [f"The plot and this table: {MISSING}."]
    heads = [f"{group.label} words (n={group.count})" for group in groups_of(records[next(iter(measured))])]
    lines = [f"![BLEU by source length]({PLOT.removeprefix('docs/')})", ""]
    lines += [f"| model | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, label in measured.items():
        lines.append(f"| {label} | {' | '.join(f'{group.score.value:.1f}' for group in groups_of(records[name]))} |")
    return lines


def details_of(record: dict[str, Any]) -> list[str]:
    """One line per metric of the test set, with its signature where it has one."""
    scored = {name: score for name, score in record["test"].items() if name != "by_length"}
    return [f"- {name} {score['value']:.2f} {signature_of(score['details'])}".rstrip() for name, score in scored.items()]


def signature_of(details: dict[str, Any]) -> str:
    """The signature of sacreBLEU, in code marks."""
    return f"`{details['signature']}`" if "signature" in details else ""


def plot_by_length(records: Records, place: Path) -> Path:
    """A line per model of the ladder: BLEU over source length."""
    length_png(place, {label: groups_of(records[name]) for name, label in LADDER.items() if name in records})
    return place
