"""`transduce transcribe`: recordings of any length in, text, subtitles or everything known out.

In: files. Out: a line of text (or JSON) for each on standard output, or a file for each in a folder; news on standard error. The
decision to question: every file is opened before the first one is read, so that a bad name costs no hour.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transduce.commands.ask import load_predictor, search_settings
from transduce.data.media import open_media
from transduce.data.sound_files import Part, sound_seconds
from transduce.data.values import BadValueError, Media
from transduce.errors import ConfigError, DataError, StorageError
from transduce.subtitles import cues_of, to_srt, to_vtt
from transduce.transcribe import Transcript, WindowsOfSound, transcribe
from transduce.tree import listed, nearest

ENDINGS = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "jsonl": ".json"}
ANY_LENGTH = 1e9


@dataclass(frozen=True)
class TranscribeOptions:
    """How transcripts are made and written. `style` is text, srt, vtt or jsonl. output: a folder, None = standard output."""

    style: str = "text"
    output: Path | None = None
    window_seconds: float | None = None
    overlap_seconds: float | None = None
    beam: int | None = None
    language_model: Path | None = None


def transcribe_files(
    model: Path, recordings: Sequence[Path], *, options: TranscribeOptions, words: Sequence[str], threads: int | None
) -> None:
    """Read recordings. Raises DataError for one that cannot be read, ConfigError for options that do not go together."""
    _check(recordings, options)
    predictor = load_predictor([model], options.language_model, words=words, threads=threads)
    search = search_settings(predictor.search, words, beam=options.beam)
    windows = WindowsOfSound(options.window_seconds, options.overlap_seconds)
    for path in recordings:
        begin = time.perf_counter()
        transcript = transcribe(predictor, path, windows=windows, search=search)
        took = time.perf_counter() - begin
        _write(path, transcript, options)
        speed = f"{transcript.seconds:.1f} s in {took:.1f} s (real-time factor {took / max(transcript.seconds, 1e-9):.3f})"
        print(f"{path}: {speed}, windows: {len(transcript.segments)}", file=sys.stderr)
        for flag, count in transcript.flags.items():
            print(f"warning: {path}: {count} of {len(transcript.segments)} windows: {flag}", file=sys.stderr)


def _check(recordings: Sequence[Path], options: TranscribeOptions) -> None:
    if options.style not in ENDINGS:
        raise ConfigError(f"--format {options.style} is not allowed: {listed(list(ENDINGS))}{nearest(options.style, list(ENDINGS))}")
    if options.style in ("srt", "vtt") and options.output is None and len(recordings) > 1:
        raise ConfigError(f"{len(recordings)} files of subtitles cannot share standard output: name a folder with --output")
    names = [path.stem for path in recordings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if options.output is not None and twice is not None:
        raise ConfigError(f"two recordings are called {twice}, so their files in {options.output} would be one; rename or split them")
    for path in recordings:
        try:
            with open_media(Media(path.absolute())) as file:
                sound_seconds(file, Part(max_seconds=ANY_LENGTH))
        except BadValueError as problem:
            raise DataError(str(problem), path) from None


def _write(path: Path, transcript: Transcript, options: TranscribeOptions) -> None:
    text = written(path, transcript, options.style)
    if options.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    place = options.output / f"{path.stem}{ENDINGS[options.style]}"
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{place}: cannot be written: {error.strerror}") from error


def written(path: Path, transcript: Transcript, style: str) -> str:
    """A transcript as text of a file."""
    match style:
        case "srt":
            return to_srt(cues_of(transcript.words))
        case "vtt":
            return to_vtt(cues_of(transcript.words))
        case "jsonl":
            return json.dumps({"recording": str(path), **asdict(transcript)}, ensure_ascii=False) + "\n"
        case _:
            return " ".join(transcript.text.split()) + "\n"
