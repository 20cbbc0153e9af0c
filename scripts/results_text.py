"""The text results of docs/results.md: every experiment by name. Command line: see results_run.py.

In: the data sets and examples/text/*.yaml. Out: docs/results/NAME.json, docs/results.md, the table of README.md and the plot of BLEU by
source length.

Decision to question: the test set is decoded once, by the checkpoint that validation chose, and scored here with the metrics of the
package, so that a word with several pronunciations is compared with the closest.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import results_data
import results_page
import results_run
from results_run import Experiment

from transduce.metrics import compute_metrics

Files = Mapping[str, tuple[str, str]]
"""Source and target file of each split, below the work folder."""


def multi30k(name: str, config: str, minutes: float, *, direction: str = "en-de", slow: float = 1) -> Experiment:
    """A Multi30k experiment: BLEU and chrF on test_2016_flickr."""
    source, target = direction.split("-")
    stems = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    files = {split: (f"multi30k/{stem}.{source}", f"multi30k/{stem}.{target}") for split, stem in stems.items()}
    return Experiment(
        name,
        (f"examples/text/{config}", *(() if direction == "en-de" else settings_of(files))),
        results_data.prepare_multi30k,
        partial(score, files, ("bleu", "chrf")),
        minutes=minutes,
        slow=slow,
    )


def symbols(
    name: str,
    config: str,
    *pieces: str,
    folder: str,
    prepare: Callable[[Path, Path], None],
    minutes: float,
    num_models: int = 1,
) -> Experiment:
    """A symbol experiment whose files are FOLDER/{train,valid,test}.{source,target}. pieces: settings that differ from the file."""
    files = {split: (f"{folder}/{split}.source", f"{folder}/{split}.target") for split in ("train", "valid", "test")}
    metrics = ("exact_match",) if folder.startswith("scan") else ("exact_match", "per")
    return Experiment(
        name,
        (f"examples/text/{config}", *settings_of(files), *pieces),
        prepare,
        partial(score, files, metrics, references={"test": "cmudict/references.tsv"} if folder == "cmudict" else {}),
        minutes=minutes,
        slow=2,
        num_models=num_models,
    )


def settings_of(files: Files) -> tuple[str, ...]:
    """Command-line words that point a configuration at other files of the work folder."""
    ends = ("source", "target")
    return tuple(f"data.{split}.{end}=work/{file}" for split in ("train", "valid") for end, file in zip(ends, files[split], strict=True))


def score(
    files: Files, metrics: Sequence[str], runs: Sequence[Path], split: str, *, references: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Decode one file with all models together and score it: {metric: {value, details}} and, for BLEU, the score by source length.

    references: for a split, the TSV file with several references per source.
    """
    work = results_run.ROOT / "work"
    source, target = (work / name for name in files[split])
    output = runs[0].parent / f"{source.name}.out"
    others = [word for place in runs[1:] for word in ("--ensemble", str(place))]
    results_run.transduce("predict", str(runs[0]), *others, "--input", str(source), "--output", str(output))
    sources, predictions = results_data.read_lines(source), results_data.read_lines(output)
    expected = [[line] for line in results_data.read_lines(target)]
    if references and split in references:
        expected = results_data.references_of(sources, work / references[split])
    scores = compute_metrics(metrics, predictions, expected)
    found: dict[str, Any] = {name: {"value": value.value, "details": value.details} for name, value in scores.items()}
    if "bleu" in metrics:
        found["by_length"] = results_page.bleu_by_length(sources, predictions, expected)
    return found


# CMUdict has four times the words of the other list.
LESS_DROPOUT = (
    *("model.encoder.dropout=0.2", "model.decoder.dropout=0.2", "model.embedding_dropout=0.1"),
    "train.validate_every_steps=800",
)

EXPERIMENTS: tuple[Experiment, ...] = (
    multi30k("multi30k-en-de-rnn-fixed", "multi30k-en-de-rnn-fixed.yaml", 40),
    multi30k("multi30k-en-de-rnn-bahdanau", "multi30k-en-de-rnn-bahdanau.yaml", 40),
    multi30k("multi30k-en-de-rnn-luong", "multi30k-en-de-rnn-luong.yaml", 40),
    multi30k("multi30k-en-de-transformer", "multi30k-en-de-transformer.yaml", 60, slow=2),
    multi30k("multi30k-en-fr-transformer", "multi30k-en-de-transformer.yaml", 60, direction="en-fr", slow=2),
    multi30k("multi30k-de-en-transformer", "multi30k-en-de-transformer.yaml", 60, direction="de-en", slow=2),
    symbols("g2p-eng-us", "g2p.yaml", folder="g2p", prepare=results_data.prepare_g2p, minutes=20, num_models=3),
    symbols("cmudict", "g2p.yaml", *LESS_DROPOUT, folder="cmudict", prepare=results_data.prepare_cmudict, minutes=60),
    symbols("scan-simple", "scan.yaml", folder="scan-simple", prepare=results_data.prepare_scan, minutes=10),
    symbols("scan-length", "scan.yaml", folder="scan-length", prepare=results_data.prepare_scan, minutes=10),
    symbols("scan-addprim-jump", "scan.yaml", folder="scan-addprim_jump", prepare=results_data.prepare_scan, minutes=10),
)

if __name__ == "__main__":
    results_run.main(EXPERIMENTS, results_page.write_pages)
