"""A model's own answers as training data for a smaller one: sequence-level knowledge distillation (Kim & Rush 2016, section 3.2).

In: a `Predictor` and examples. Out: a JSONL file of pairs, the model's answer in place of the reference. The decision a reader would
question: the file itself says how far the work has come. A run that was stopped goes on after the last whole line, and a small file
beside it (`.json`) holds what the pairs were made with, so that answers of two models are never mixed.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import sacrebleu

from transduce.data.examples import Record
from transduce.errors import ConfigError, DataError, StorageError
from transduce.predict import Prediction, Predictor
from transduce.train.storage import write_json
from transduce.tree import shown

CHUNK = 4096
"""Sources answered at once: the most that is lost when a run is killed."""
KEPT = "references kept, for want of a whole answer"
LEFT_OUT = "sources left out, for want of a whole answer"
LEFT_OUT_BEFORE = "sources left out before this run"


@dataclass
class Distilled:
    """What became of the sources. pairs: in the file now. found: of these, those that an earlier run wrote. counts: what else there is to
    tell, by its words."""

    pairs: int = 0
    found: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def distill(
    predictor: Predictor,
    records: Iterable[Record],
    output: Path,
    *,
    closest: bool = False,
    made_with: Mapping[str, Any] | None = None,
    report: Callable[[Distilled], None] | None = None,
) -> Distilled:
    """Write a line `{"source": ..., "target": ...}` for each example, in their order, and go on where an earlier run was stopped.

    The target is the predictor's best answer; with `closest`, that of its n-best list which is most like a reference (chrF;
    sequence-level interpolation, Kim & Rush 2016, section 3.3). An answer that is empty or was cut off is none: a reference takes its
    place, and an example without one is left out; both are counted. made_with: what decides the answers, for the file beside the
    output. report: called after every few thousand sources. Raises ConfigError where the file was made with something else, DataError
    where it holds other sources.
    """
    done = Distilled()
    _agree(output, dict(made_with or {}))
    _cut_torn_line(output)
    left = _after(records, _sources(output), done, output=output)
    while chunk := list(islice(left, CHUNK)):
        predictions = predictor.predict([record.source for record in chunk])
        lines = [line for pair in zip(chunk, predictions, strict=True) if (line := _line(*pair, closest=closest, done=done)) is not None]
        _append(output, lines)
        done.pairs += len(lines)
        if report is not None:
            report(done)
    return done


def _line(record: Record, prediction: Prediction, *, closest: bool, done: Distilled) -> str | None:
    """The line of one example, or None where it has no target."""
    references = [str(target) for target in record.targets if str(target).strip()]
    entries = [entry.text for entry in prediction.alternatives or (prediction,) if entry.text.strip() and not entry.truncated]
    if not entries:
        done.counts[KEPT if references else LEFT_OUT] += 1
        if not references:
            return None
        target = references[0]
    else:
        target = max(entries, key=lambda text: sacrebleu.sentence_chrf(text, references).score) if closest and references else entries[0]
    return json.dumps({"source": record.source, "target": target}, ensure_ascii=False) + "\n"


def _after(records: Iterable[Record], sources: Iterator[str], done: Distilled, *, output: Path) -> Iterator[Record]:
    """The examples behind the one whose line is the last. Those without a line before it were left out, and are not tried again."""
    expected = next(sources, None)
    for record in records:
        if expected is None:
            yield record
        elif record.source == expected:
            done.found, done.pairs = done.found + 1, done.pairs + 1
            expected = next(sources, None)
        else:
            done.counts[LEFT_OUT_BEFORE] += 1
    if expected is not None:
        message = (
            f"the source {shown(expected)} is not there, in this order, among those to answer: name another --output, or remove this one"
        )
        raise DataError(message, output, done.found + 1)


def _agree(output: Path, made_with: dict[str, Any]) -> None:
    """Write beside the output what it is made with, or compare with what stands there. Raises ConfigError."""
    beside = output.with_name(output.name + ".json")
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(beside, made_with)
        output.touch()
        return
    try:
        before = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(f"{output} is there, but {beside.name} does not say how it was made: name another --output") from None
    other = next((key for key in sorted({*before, *made_with}) if before.get(key) != made_with.get(key)), None)
    if other is not None:
        was, now = shown(before.get(other)), shown(made_with.get(other))
        raise ConfigError(f"{output} was begun with {other} = {was}, not {now}: name another --output, or remove it")


def _cut_torn_line(output: Path) -> None:
    """Take off what stands behind the last line break: a line that was being written when the run was killed."""
    with output.open("r+b") as file:
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))


def _sources(output: Path) -> Iterator[str]:
    """The sources of the lines that are there. Raises DataError for a line that is none of ours."""
    with output.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)["source"]
            except (ValueError, KeyError, TypeError):
                raise DataError("is no pair that `transduce distill` wrote", output, number) from None


def _append(output: Path, lines: Iterable[str]) -> None:
    try:
        with output.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error.strerror}") from error
