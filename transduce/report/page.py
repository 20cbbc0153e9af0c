"""The page: a `Report` as one HTML text, without links to anything outside it.

In: `Report`. Out: HTML. Every text of the user's data goes through `escape`. The style is in page.css, which is put into the page.
"""

import difflib
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from transduce.evaluate import Baseline, Evaluation
from transduce.metrics.alignments import Edit, EditAlignment
from transduce.metrics.by_length import LengthScore
from transduce.metrics.edits import EditCounts
from transduce.metrics.score import Score
from transduce.report.build import Example, Report
from transduce.report.charts import Point, heat_map, line_chart, point_chart
from transduce.report.media import draw, exhibit_note
from transduce.train.journal import Curves

EDIT_COLUMNS = EditCounts._fields
STYLE = Path(__file__).with_name("page.css")
LABELS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "wer": "WER",
    "cer": "CER",
    "per": "PER",
    "exact_match": "Exact match",
    **{f"coco_bleu{n}": f"BLEU-{n} (COCO)" for n in range(1, 5)},
    "coco_rougeL": "ROUGE-L (COCO)",
    "cider": "CIDEr-D",
    "accuracy": "Token accuracy",
    "source_gain": "Loss rise with wrong sources",
    "ade": "ADE",
    "fde": "FDE",
    "min_ade": "ADE, best of several",
    "min_fde": "FDE, best of several",
    "miss_rate": "Miss rate",
    "iou": "Mean IoU",
    "final_iou": "Final IoU",
}
# Columns of a run without a chart of their own: the loss stands beside the training loss, perplexity is its exponential.
HIDDEN = frozenset({"loss", "perplexity"})


def render(report: Report) -> str:
    """The whole page."""
    sections = [
        _header(report),
        _scores(report),
        _notices(report),
        _comparison(report),
        _control(report),
        _by_length(report),
        _attention(report),
        _errors(report),
        _examples("worst", report.worst, report),
        _examples("best", report.best, report),
        learning_curves(report.curves),
        _settings(report),
    ]
    return document(report.evaluation.model, sections)


def document(model: str, sections: Sequence[str]) -> str:
    """A whole page about one model. sections: HTML."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of {escape(model)}</title><style>{STYLE.read_text(encoding='utf-8')}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(sections)}</main></body></html>\n'


def header(model: str, facts: Sequence[str]) -> str:
    """The name of the model and what is to be known first."""
    spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts)
    return f'<header><p class="kind">Evaluation</p><h1>{escape(model)}</h1><p class="facts">{spans}</p></header>'


def marked(prediction: str, reference: str) -> str:
    """The prediction as HTML, with what the reference does not have marked; by words, or by characters where both are single words."""
    split = r"\s+|\S+" if re.search(r"\s", reference.strip()) or re.search(r"\s", prediction.strip()) else r"."
    ours, theirs = re.findall(split, prediction, re.DOTALL), re.findall(split, reference, re.DOTALL)
    parts = []
    for tag, start, end, _, _ in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        text = escape("".join(ours[start:end]))
        parts.append(text if tag == "equal" or not text.strip() else f"<mark>{text}</mark>")
    return "".join(parts)


def section(name: str, title: str, content: str, *, note: str = "") -> str:
    """A part of the page with a heading. content: HTML; note: text."""
    text = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{text}{content}</section>'


def _header(report: Report) -> str:
    evaluation = report.evaluation
    things = "pictures" if evaluation.control else "recordings" if evaluation.sound_seconds else "sentences"
    facts = [
        f"{len(evaluation.sources):,} {things}",
        f"{evaluation.sentences_per_second:,.1f} {things} a second",
        f"{evaluation.seconds:,.1f} s",
        *_sound_facts(evaluation),
        f"beam {evaluation.search.beam_size}" if evaluation.search.sampling is None else "sampling",
    ]
    return header(evaluation.model, facts)


def _sound_facts(evaluation: Evaluation) -> list[str]:
    if not evaluation.sound_seconds:
        return []
    return [f"{evaluation.sound_seconds:,.1f} s of sound", f"real-time factor {evaluation.seconds / evaluation.sound_seconds:.3f}"]


def _scores(report: Report) -> str:
    cards = "".join(_card(score) for score in report.evaluation.scores.values())
    rows = "".join(_detail_row(score) for score in report.evaluation.scores.values())
    details = f"<details><summary>Signatures and counts</summary><table>{rows}</table></details>"
    return f'<section id="scores"><div class="cards">{cards}</div>{details}</section>'


def _card(score: Score) -> str:
    low, high = score.interval or (score.value, score.value)
    interval = f'<span title="95 % bootstrap interval">95 %: {low:.2f} to {high:.2f}</span>' if score.interval else "no interval"
    return (
        f'<div class="card"><div class="name">{escape(LABELS.get(score.name, score.name))}</div><div class="value">{score.value:.2f}</div>'
        f'<div class="small">{interval}</div>{_edit_counts(score)}<div class="small">{score.better} is better</div></div>'
    )


def _edit_counts(score: Score) -> str:
    """What an error rate counted, on its card."""
    counts = {name: float(str(score.details[name])) for name in EDIT_COLUMNS if name in score.details}
    if len(counts) < len(EDIT_COLUMNS):
        return ""
    total = counts["hits"] + counts["substitutions"] + counts["deletions"]
    kinds = f"{counts['substitutions']:,.0f} sub, {counts['insertions']:,.0f} ins, {counts['deletions']:,.0f} del"
    return f'<div class="small" title="substitutions, insertions, deletions">{kinds} of {total:,.0f}</div>'


def _detail_row(score: Score) -> str:
    counts = ", ".join(f"{name} {value}" for name, value in score.details.items() if name not in ("signature", "interval"))
    name = escape(LABELS.get(score.name, score.name))
    return f"<tr><th>{name}</th><td><code>{escape(score.signature)}</code><br>{escape(counts)}</td></tr>"


def _notices(report: Report) -> str:
    """Counts that a reader must not overlook; a quiet line where there are none."""
    evaluation = report.evaluation
    counts = {"hit the length limit (truncated)": evaluation.truncated}
    counts.update({f"flagged {flag.replace('_', ' ')}": count for flag, count in evaluation.flags.items()})
    notes = [f"{count:,} of {len(evaluation.sources):,} predictions {what}" for what, count in counts.items() if count]
    notes += [f"{LABELS[name]}: {score.details['note']}" for name, score in evaluation.scores.items() if "note" in score.details]
    if evaluation.blind:
        notes.append(str(evaluation.control_verdict))
    if not notes:
        return '<p class="quiet">No prediction was truncated or flagged.</p>'
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<section id="notices" class="warning"><h2>Please note</h2><ul>{items}</ul></section>'


def _comparison(report: Report) -> str:
    baseline = report.evaluation.baseline
    return "" if baseline is None else _tests("comparison", "Against the baseline", baseline, column="Baseline")


def _control(report: Report) -> str:
    evaluation = report.evaluation
    if evaluation.control is None:
        return ""
    lines = [evaluation.control_verdict or "", *evaluation.originality_lines]
    words = "".join(f"<p>{escape(line[:1].upper() + line[1:])}.</p>" for line in lines)
    return _tests("control", "Does it look?", evaluation.control, column="Other pictures") + words


def _tests(name: str, title: str, baseline: Baseline, *, column: str) -> str:
    rows = "".join(
        f"<tr><th>{escape(LABELS.get(test.metric, test.metric))}</th><td>{test.value:.2f}</td><td>{test.baseline:.2f}</td>"
        f'<td>{test.difference:+.2f}</td><td>{test.p_value:.3f}</td><td class="verdict {test.verdict.split()[0]}">{test.verdict}</td></tr>'
        for test in baseline.comparisons
    )
    head = f"<tr><th>Metric</th><th>This model</th><th>{column}</th><th>Difference</th><th>p</th><th>Verdict at 5 %</th></tr>"
    note = f"{column}: {baseline.name}. Paired bootstrap on the same sentences."
    return section(name, title, f'<div class="scroll"><table class="numbers">{head}{rows}</table></div>', note=note)


def _by_length(report: Report) -> str:
    if not report.by_length:
        return ""
    groups = next(iter(report.by_length.values()))
    metric = LABELS.get(groups[0].score.name, groups[0].score.name)
    series = {name: [_length_point(name, group) for group in row] for name, row in report.by_length.items()}
    title = f"source length in {groups[0].unit}"
    chart = point_chart(series, [group.label for group in groups], x_title=title, description=f"{metric} by {title}")
    note = f"{metric} of groups of about equal size, with 95 % intervals."
    return section("length", f"{metric} by source length", f"<figure>{chart}{legend(list(series))}</figure>", note=note)


def _length_point(name: str, group: LengthScore) -> Point:
    low, high = group.score.interval or (group.score.value, group.score.value)
    title = f"{name}, {group.label} {group.unit}: {group.score.value:.2f} ({low:.2f} to {high:.2f}), {group.count} sentences"
    return Point(group.score.value, low, high, title)


def legend(names: Sequence[str]) -> str:
    """The colours of the lines of a chart; nothing where there is one line."""
    if len(names) < 2:
        return ""
    items = "".join(f'<span><i class="s{number}"></i>{escape(name)}</span>' for number, name in enumerate(names, start=1))
    return f'<figcaption class="legend">{items}</figcaption>'


def _attention(report: Report) -> str:
    if not report.maps:
        missing = f'<p class="quiet">{escape(report.maps_missing)}</p>'
        return section("attention", "Attention", missing) if report.maps_missing else ""
    maps = [(f"Line {number}", heat_map(table, description=f"Attention of line {number}")) for number, table in report.maps]
    figures = "".join(f'<figure><figcaption>{title}</figcaption><div class="scroll">{drawn}</div></figure>' for title, drawn in maps)
    note = "Rows are the output from top to bottom, columns the source; the stronger the colour, the more the model looked there."
    return section("attention", "Attention", f'<div class="maps">{figures}</div>', note=note)


def _errors(report: Report) -> str:
    """What was taken for what most often."""
    if not report.errors:
        return ""
    items = "".join(f'<span class="tally">{_pair(edit)}<span class="small">{count} ×</span></span>' for edit, count in report.errors)
    note = "The reference above, the output below: filled = substitution, red = deletion, blue = insertion."
    return section("errors", "Most frequent errors", f'<p class="aligned">{items}</p>', note=note)


def _pair(edit: Edit) -> str:
    """One place of an alignment: the reference above the output."""
    above, below = (escape(side).replace(" ", "␣") or "&nbsp;" for side in (edit.reference, edit.prediction))
    return f'<span class="pair {edit.kind}" title="{edit.kind}"><b>{above}</b><i>{below}</i></span>'


def _examples(name: str, examples: Sequence[Example], report: Report) -> str:
    if not examples:
        return ""
    items = "".join(_example(example, name=f"{name}-{number}") for number, example in enumerate(examples, start=1))
    marks = "Marked: what the reference does not have." if examples[0].alignment is None else "The reference above, the output below."
    note = " ".join([f"Ranked by {report.ranked_by}.", marks, exhibit_note([example.exhibit for example in examples])])
    return section(name, f"{name.capitalize()} examples", f'<ol class="examples">{items}</ol>', note=note)


def _example(example: Example, *, name: str) -> str:
    rows = f'<dt>Source</dt><dd dir="auto">{escape(example.source)}</dd>'
    if example.alignment is None or len(example.references) > 1:
        rows += "".join(f'<dt>Reference</dt><dd dir="auto">{escape(text)}</dd>' for text in example.references)
    marks = "".join(f'<span class="flag">{escape(mark.replace("_", " "))}</span>' for mark in example.marks)
    rows += _output(example) if example.alignment is None else _aligned(example.alignment)
    drawn = "" if example.exhibit is None else draw(example.exhibit, name)
    return (
        f'<li><div class="line"><span>line {example.number}</span><span>{example.score:.1f}</span>{marks}</div><dl>{rows}</dl>{drawn}</li>'
    )


def _output(example: Example) -> str:
    closest = max(example.references, key=lambda text: difflib.SequenceMatcher(None, text, example.prediction, autojunk=False).ratio())
    output = marked(example.prediction, closest) or '<span class="quiet">(empty)</span>'
    return f'<dt>Output</dt><dd dir="auto">{output}</dd>'


def _aligned(alignment: EditAlignment) -> str:
    """Reference and output word by word, and the counts."""
    counts, pairs = alignment.counts, "".join(_pair(edit) for edit in alignment.edits)
    total = counts.hits + counts.substitutions + counts.deletions
    kinds = f"substitutions {counts.substitutions}, insertions {counts.insertions}, deletions {counts.deletions}"
    empty = "" if any(edit.prediction for edit in alignment.edits) else '<span class="quiet">(the output is empty)</span>'
    rows = f'<dt class="rows">Reference<br>Output</dt><dd class="aligned" dir="auto">{pairs}{empty}</dd>'
    return f'{rows}<dt></dt><dd class="small">{kinds} of {alignment.unit}s {total}</dd>'


def learning_curves(curves: Curves, *, unit: str = "token") -> str:
    """The loss and each metric over the steps of training; nothing where nothing was recorded. unit: what the loss is counted by."""
    losses: dict[str, Sequence[tuple[float, float]]] = {"training": curves.training, "validation": curves.series("loss")}
    charts = {f"Loss per {unit}": {name: row for name, row in losses.items() if row}}
    charts.update({LABELS.get(name, name): {name: curves.series(name)} for name in curves.metrics if name not in HIDDEN})
    figures = []
    for title, series in charts.items():
        drawn = line_chart(series, x_title="step", description=f"{title} over training steps")
        if drawn:
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{drawn}{legend(list(series))}</figure>")
    if not figures:
        return ""
    return section("curves", "Learning curves", f'<div class="grid2">{"".join(figures)}</div>')


def _settings(report: Report) -> str:
    search = "\n".join(f"{name}: {value}" for name, value in report.evaluation.search.model_dump(mode="json").items())
    content = f"<details><summary>Search</summary><pre>{escape(search)}</pre></details>"
    if report.settings:
        content += f"<details><summary>Model and training (config.yaml)</summary><pre>{escape(report.settings)}</pre></details>"
    return section("settings", "Settings", content)
