"""`transduce init`: looks at the user's files and writes a configuration for them, with the reasons beside the choices.

In: aligned text files, TSV/JSONL files, manifests of recordings or pictures, or tables of tracks, for training and (on request)
validation. Out: a commented YAML file of at most 30 lines and a summary. The decision to question: without validation files it writes
a split of its own to new files, chosen by a hash of the source, so that the same data always gives the same split and equal sources
stay together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transduce.commands.initialise_media import Manifest, advise_media, media_yaml, read_manifest
from transduce.commands.initialise_tracks import advise_tracks, is_table, split_tracks, tracks_yaml
from transduce.commands.split import split_corpus
from transduce.commands.survey import Survey, survey_corpus
from transduce.data.examples import ENDINGS, CorpusConfig
from transduce.errors import ConfigError, DataError, StorageError
from transduce.tree import scalar_text

VALID_WORDS = ("valid", "validation", "val", "dev", "devel")
TEST_WORDS = ("test", "eval", "heldout")
SHORT_CHARACTERS = 40
FEW_WORDS = 2000


@dataclass(frozen=True)
class _Files:
    """The user's files in their parts."""

    train: CorpusConfig
    valid: CorpusConfig | None
    test: CorpusConfig | None


@dataclass(frozen=True)
class _Advice:
    """A preset and a codec, and why."""

    preset: str
    codec: str
    joint: bool
    vocabulary_size: int | None
    reason: str


def initialise(files: Sequence[Path], *, output: Path, run_dir: Path, force: bool) -> None:
    """Write a configuration for the user's files. Raises ConfigError (what the files must be), DataError (a bad record)."""
    if output.exists() and not force:
        raise ConfigError(f"{output} exists; choose another --output, or --force to write over it")
    parts = _sort_files(files)
    if parts.train.resolved_format == "tracks":
        _initialise_tracks(parts, output=output, run_dir=run_dir)
        return
    manifest = None if parts.train.path is None else read_manifest(parts.train.path)
    if manifest is not None:
        _initialise_media(manifest, parts, output=output, run_dir=run_dir)
        return
    survey = survey_corpus(parts.train)
    train, valid = parts.train, parts.valid
    if valid is None:
        folder = output.parent / f"{output.stem}-data"
        train, valid, count = split_corpus(parts.train, survey.pairs, folder)
        print(f"No validation files were named: {count} of {survey.pairs} pairs went to {valid.name}, the others to {train.name}.")
    advice = _advise(survey)
    for line in survey.lines():
        print(line)
    print(f"Choice: {advice.preset}, {advice.codec}: {advice.reason}.")
    _write(output, _yaml(train, valid, advice=advice, run_dir=run_dir, survey=survey))
    print(f"Wrote {output}. Next:\n  transduce train {output}\n  transduce predict {run_dir} --input FILE")
    if parts.test is not None and parts.test.path is None:
        source, target = parts.test.files
        print(f"  transduce evaluate {run_dir} --source {source} --target {target}")


def _initialise_media(train: Manifest, parts: _Files, *, output: Path, run_dir: Path) -> None:
    """The same for manifests of recordings or pictures."""
    valid = None if parts.valid is None or parts.valid.path is None else read_manifest(parts.valid.path)
    if valid is None:
        raise ConfigError(f"{train.path} names recordings or pictures: name a second manifest, for validation (val.jsonl)")
    advice = advise_media(train)
    print(advice.line())
    _write(output, media_yaml(train, valid, advice=advice, run_dir=run_dir))
    print(f"Wrote {output}. Next:\n  transduce train {output}\n  transduce predict {run_dir} --input FILE")
    if parts.test is not None:
        print(f"  transduce evaluate {run_dir} --data {parts.test.files[0]} --report {run_dir}/report")


def _initialise_tracks(parts: _Files, *, output: Path, run_dir: Path) -> None:
    """The same for tables of tracks."""
    train, valid = parts.train.files[0], None if parts.valid is None else parts.valid.files[0]
    advice = advise_tracks(train)
    if valid is None:
        train, valid = split_tracks(train, advice.windows, output.parent / f"{output.stem}-data")
        print(f"No validation files were named: a tenth of the tracks went to {valid}, the others to {train}.")
    for line in advice.lines():
        print(line)
    _write(output, tracks_yaml(train, valid, advice=advice, run_dir=run_dir))
    print(f"Wrote {output}. Next:\n  transduce train {output}\n  transduce predict {run_dir} --input FILE")
    if parts.test is not None:
        print(f"  transduce evaluate {run_dir} --data {parts.test.files[0]} --report {run_dir}/report")


def _sort_files(files: Sequence[Path]) -> _Files:
    """Which files are training, validation and test, by the words in their names, else by their order."""
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError("no such file", missing[0])
    tables = [path for path in files if is_table(path)]
    if tables and len(tables) < len(files):
        other = next(path for path in files if path not in tables)
        raise ConfigError(f"{tables[0]} is a table of tracks and {other} is none; give files of one sort")
    whole = [path for path in files if path in tables or _is_pair_file(path)]
    ends = [path for path in files if path not in whole]
    if whole and ends:
        raise ConfigError(f"{whole[0]} holds both ends and {ends[0]} one; give files of one sort")
    if len(ends) % 2:
        raise ConfigError(f"{len(ends)} text files cannot be paired: give SOURCE TARGET for training, then for validation")
    corpora = [CorpusConfig(path=path, format="tracks" if tables else "auto") for path in whole]
    corpora += [CorpusConfig(source=str(ends[i]), target=str(ends[i + 1])) for i in range(0, len(ends), 2)]
    valid = _named(corpora, VALID_WORDS)
    test = _named(corpora, TEST_WORDS)
    train = [corpus for corpus in corpora if corpus not in (valid, test)]
    if len(train) == 2 and valid is None:
        valid = train.pop()
    if len(train) != 1:
        raise ConfigError(f"{len(train)} training corpora among {len(corpora)}; give the training files, then the validation files")
    return _Files(train[0], valid, test)


def _is_pair_file(path: Path) -> bool:
    """Whether one file holds both ends, as its ending says (.tsv, .jsonl and their kin)."""
    return Path(path.name.removesuffix(".gz")).suffix in ENDINGS


def _named(corpora: Sequence[CorpusConfig], words: Sequence[str]) -> CorpusConfig | None:
    """The corpus whose file is called by one of the words: val.en, en-de.dev.tsv, test_2016.en."""
    for corpus in corpora:
        parts = corpus.files[0].name.lower().replace("-", ".").replace("_", ".").split(".")
        if any(part.rstrip("0123456789") in words for part in parts):
            return corpus
    return None


def _advise(survey: Survey) -> _Advice:
    """Preset and codec for what was found."""
    joint = survey.shared_alphabet >= 0.5
    source, target = survey.source, survey.target
    if max(source.distinct_words, target.distinct_words) <= FEW_WORDS and min(source.mean_words, target.mean_words) >= 3:
        reason = f"every text is made of {max(source.distinct_words, target.distinct_words)} words at most"
        return _Advice("transformer-tiny", "words", False, None, reason)
    if max(source.mean_characters, target.mean_characters) <= SHORT_CHARACTERS and not target.is_prose:
        return _Advice("transformer-tiny", "characters", False, None, "the texts are short, so letters are the better units")
    sizes = ((10_000, 2000), (200_000, 8000), (1_000_000, 16_000))
    size = next((size for pairs, size in sizes if survey.pairs < pairs), 32_000)
    preset = "transformer-small" if survey.pairs < 500_000 else "transformer-base"
    return _Advice(preset, "sentencepiece", joint, size, f"{survey.pairs} pairs of running text")


def _yaml(train: CorpusConfig, valid: CorpusConfig, *, advice: _Advice, run_dir: Path, survey: Survey) -> str:
    """The configuration, at most 30 lines. Keys that the preset sets alike are left out, so it stays the user's own."""
    lines = [
        f"# {survey.pairs} pairs; {advice.reason}. All keys: transduce config FILE",
        f"preset: {advice.preset}",
        f"run_dir: {scalar_text(str(run_dir))}",
        "seed: 1",
        "data:",
        f"  train: {_corpus(train)}",
        f"  valid: {_corpus(valid)}",
        f"  joint_vocabulary: {scalar_text(advice.joint)}  # one vocabulary for both ends",
    ]
    for end in ("source", "target"):
        codec: dict[str, object] = {"kind": advice.codec}
        if advice.vocabulary_size is not None:
            codec["vocabulary_size"] = advice.vocabulary_size
        lines.append(f"  {end}_codec: {scalar_text(codec)}  # sentencepiece, characters, bytes or words")
    tie = "all" if advice.joint else "output"
    lines += ["model:", f"  tie: {tie}  # shared weights: all needs a joint vocabulary"]
    if survey.longest > 1000:
        lines.append("  # Some texts are very long: see data.max_source_tokens and data.max_target_tokens")
    lines += ["train:", "  max_minutes: 40  # or max_steps, max_epochs; the first that is reached ends the run", "  save_every_steps: 200"]
    if advice.codec != "sentencepiece":
        lines += ["  validation:", "    metrics: [exact_match, cer]", "  metric: exact_match"]
    return "\n".join(lines) + "\n"


def _corpus(corpus: CorpusConfig) -> str:
    if corpus.path is not None:
        return scalar_text({"path": str(corpus.path)})
    return scalar_text({"source": str(corpus.source), "target": str(corpus.target)})


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
