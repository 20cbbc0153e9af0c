"""The command line: verbs in, one exit code out. Each verb reads its words here and does its work elsewhere.

The one decision to question: everything heavy is imported inside the verbs, so that `--help` answers at once. Errors
meet the user in `main` only: a TransduceError is one message and its own exit code, anything else is a bug (70).
"""

import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from transduce import __version__
from transduce.errors import EXIT_INTERNAL, EXIT_IO, EXIT_OK, TransduceError

SPINS = "10000"
"""Turns that a thread of GNU OpenMP waits awake; its own default is 300,000."""

TRACEBACK_VARIABLE = "TRANSDUCE_TRACEBACK"


class _Verbs(TyperGroup):
    """The verbs; a reader that closes our output early (`| head`) is not an error."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_OK) from None


app = typer.Typer(
    cls=_Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    help="Train encoder-decoder models on your own pairs, score them, predict. Start with `transduce init FILES`.",
)

Words = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that override the file: train.max_steps=1000.")]
SearchWords = Annotated[list[str] | None, typer.Argument(metavar="search.KEY=VALUE", help="Search settings: search.length_penalty=wu.")]
Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file; its paths are relative to the current directory.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a model directory.")]
Ensemble = Annotated[list[Path] | None, typer.Option("--ensemble", help="One more MODEL with the same target codec; may be repeated.")]
Beam = Annotated[int | None, typer.Option("--beam", min=1, help="Hypotheses kept per sentence; 1 is greedy. [model's own]")]
MediaRoot = Annotated[Path | None, typer.Option("--media", metavar="DIR|TAR", help="Where the recordings or pictures are that are named.")]
Precision = Annotated[str, typer.Option("--precision", metavar="auto|fp32|int8|bf16", help="Of products; int8 and bf16 are faster.")]
LanguageModel = Annotated[
    Path | None, typer.Option("--language-model", metavar="MODEL", help="Search with this one too (search.language_weight).")
]
Engine = Annotated[str, typer.Option("--engine", metavar="auto|torch|ctranslate2", help="What searches; auto: an export that passed.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads. [all cores]")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"transduce {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Options that stand before the verb."""


@app.command()
def train(config: Config, words: Words = None) -> None:
    """Train a model as CONFIG says.

    Progress goes to standard error; the last line on standard output is the folder of the finished model.
    """
    from transduce.config import load_config
    from transduce.train.loop import train as run

    print(run(load_config(config, words or [])))


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that was interrupted.")], words: Words = None
) -> None:
    """Continue an interrupted run.

    It goes on from the newest whole checkpoint and needs nothing but the run folder.
    """
    from transduce.train.loop import resume as continue_run

    print(continue_run(run, words or []))


@app.command()
def predict(
    model: Model,
    words: SearchWords = None,
    *,
    source: Annotated[str, typer.Option("--input", "-i", metavar="FILE", help="One source per line (.gz too); - is standard input.")] = "-",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write. [standard output]")] = None,
    beam: Beam = None,
    num_best: Annotated[int | None, typer.Option("--num-best", min=1, help="Predictions per source (text: number, score, text).")] = None,
    style: Annotated[str, typer.Option("--format", metavar="text|jsonl", help="Plain lines, or everything known as JSON lines.")] = "text",
    prefix: Annotated[str | None, typer.Option("--prefix", help="Beginning that every prediction must have.")] = None,
    prefix_file: Annotated[Path | None, typer.Option("--prefix-file", metavar="FILE", help="One beginning per source line.")] = None,
    ensemble: Ensemble = None,
    threads: Threads = None,
    media: MediaRoot = None,
    language_model: LanguageModel = None,
    chunk_lines: Annotated[int | None, typer.Option("--chunk-lines", min=1, help="Lines answered at once. [1024, terminal 1]")] = None,
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> None:
    """Predict one target per source line.

    As many lines come out as went in, in their order. A source is a text; or the name of a recording or picture; or numbers, a list of
    frames as JSON. The input may also be one recording or picture, or a table of tracks. A language model goes on from each line.
    """
    from transduce.commands.predict import PredictOptions, predict_lines

    asked = PredictOptions(
        style=style,
        prefix=prefix,
        prefix_file=prefix_file,
        chunk_lines=chunk_lines,
        beam=beam,
        num_best=num_best,
        media=media,
        precision=precision,
        language_model=language_model,
        engine=engine,
    )
    predict_lines([model, *(ensemble or [])], source, output=output, options=asked, words=words or [], threads=threads)


@app.command()
def evaluate(
    model: Model,
    words: SearchWords = None,
    *,
    source: Annotated[Path | None, typer.Option("--source", "-s", metavar="FILE", help="One source per line.")] = None,
    target: Annotated[list[Path] | None, typer.Option("--target", "-t", metavar="FILE", help="References; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", metavar="FILE", help="Instead: examples like the training data.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="A,B", help="bleu, wer, cider, ... [as in training]")] = None,
    json_output: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the figures as JSON.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="DIR", help="Write report.html there.")] = None,
    alignments: Annotated[Path | None, typer.Option("--alignments", metavar="OUT", help="Write what wer, cer or per counted.")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", metavar="MODEL", help="Test the difference to this one.")] = None,
    beam: Beam = None,
    ensemble: Ensemble = None,
    threads: Threads = None,
    media: MediaRoot = None,
    precision: Precision = "fp32",
    language_model: LanguageModel = None,
    engine: Engine = "auto",
) -> None:
    """Score a model against references; a language model by the perplexity of texts (--target or --data alone)."""
    from transduce.commands.evaluate import EvaluateOptions, Examples, evaluate_files

    options = EvaluateOptions(
        metrics,
        json_output=json_output,
        report=report,
        baseline=baseline,
        beam=beam,
        precision=precision,
        alignments=alignments,
        language_model=language_model,
        engine=engine,
    )
    examples = Examples(source, target or [], data, media)
    evaluate_files([model, *(ensemble or [])], examples, options=options, words=words or [], threads=threads)


@app.command()
def transcribe(
    model: Model,
    recordings: Annotated[list[Path], typer.Argument(metavar="RECORDINGS...", help="Sound or video files of any length.")],
    *,
    style: Annotated[str, typer.Option("--format", metavar="text|srt|vtt|jsonl", help="Plain text, subtitles, or all as JSON.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="A file for each recording, there.")] = None,
    window: Annotated[float | None, typer.Option("--window-seconds", min=0.1, help="Read at once. [the longest the model takes]")] = None,
    overlap: Annotated[float | None, typer.Option("--overlap-seconds", min=0, help="Common to two windows. [a tenth]")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="search.KEY=VALUE", help="Search settings.")] = None,
    beam: Beam = None,
    language_model: LanguageModel = None,
    threads: Threads = None,
) -> None:
    """Turn recordings of any length into text or subtitles.

    Long ones are read in windows that overlap. Windows that are silent, or where the model guesses or repeats itself, are reported.
    """
    from transduce.commands.transcribe import TranscribeOptions, transcribe_files

    options = TranscribeOptions(style, output, window_seconds=window, overlap_seconds=overlap, beam=beam, language_model=language_model)
    transcribe_files(model, recordings, options=options, words=change or [], threads=threads)


@app.command()
def average(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN_OR_CHECKPOINTS...", help="A run folder or model directories.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The model directory to write.")],
    last: Annotated[int, typer.Option("--last", min=1, help="Checkpoints of a run folder that count, the newest.")] = 5,
) -> None:
    """Average the weights of checkpoints into one model."""
    from transduce.commands.average import average_checkpoints

    average_checkpoints(paths, output=output, last=last)


@app.command("export")
def export(
    model: Model,
    *,
    export_format: Annotated[str, typer.Option("--format", metavar="ctranslate2", help="The engine to export to.")] = "ctranslate2",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to. [where predict finds it]")] = None,
    source: Annotated[Path | None, typer.Option("--source", "-s", metavar="FILE", help="Lines to compare on. [validation data]")] = None,
    target: Annotated[Path | None, typer.Option("--target", "-t", metavar="FILE", help="Their references.")] = None,
    threads: Threads = None,
) -> None:
    """Write a model for another engine and check that it answers the same.

    `predict` then uses that engine for everything that it searches exactly.
    """
    from transduce.commands.export import ExportOptions, export_files

    export_files(model, ExportOptions(export_format, output, source, target, threads))


@app.command()
def distill(
    model: Model,
    words: SearchWords = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSONL of pairs; goes on where it was stopped.")],
    source: Annotated[list[Path] | None, typer.Option("--source", "-s", metavar="FILE", help="Lines. [the model's training data]")] = None,
    closest: Annotated[bool, typer.Option("--closest", help="Of the beam, the answer most like the reference.")] = False,
    beam: Beam = None,
    ensemble: Ensemble = None,
    threads: Threads = None,
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> None:
    """Answer a model's training sources, to train a smaller one on the answers.

    Presets student-small and student-tiny are for that.
    """
    from transduce.commands.distill import DistillOptions, distill_files

    options = DistillOptions(output, source or (), closest, beam=beam, precision=precision, engine=engine)
    distill_files([model, *(ensemble or [])], options, words=words or [], threads=threads)


@app.command("config")
def show_config(config: Config, words: Words = None) -> None:
    """Print the resolved configuration, documented."""
    from transduce.config import load_config

    print(load_config(config, words or []).to_yaml(documented=True), end="")


@app.command()
def info(model: Model) -> None:
    """Say what a model is made of and how good it is."""
    from transduce.commands.info import describe_model

    describe_model(model)


@app.command()
def init(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="train.en train.de [val.en val.de], .tsv, .jsonl, or tracks.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The configuration to write.")] = Path("config.yaml"),
    run_dir: Annotated[Path, typer.Option("--run-dir", metavar="DIR", help="Where the run will live.")] = Path("runs/first"),
    force: Annotated[bool, typer.Option("--force", help="Write over an existing configuration.")] = False,
) -> None:
    """Look at your files and write a configuration."""
    from transduce.commands.initialise import initialise

    initialise(files, output=output, run_dir=run_dir, force=force)


@app.command()
def check() -> None:
    """Say what this machine offers and what is missing."""
    from transduce.commands.check import print_check

    print_check()


def rest_soon() -> None:
    """Threads that wait for each other fall asleep after some ten microseconds, instead of milliseconds, unless the user has chosen.

    Where another process has one of the cores, waiting threads otherwise hold the one that the thread they wait for needs (measured:
    docs/performance.md). GNU OpenMP reads this once, so it must be set before torch is imported.
    """
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def main() -> None:
    """Run the command line and leave with the exit code of `transduce.errors`. Output is UTF-8 whatever the locale says."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    rest_soon()
    try:
        app()
    except TransduceError as error:
        _leave(f"transduce: {error}", error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _leave(f"transduce: {place}{error.strerror or error}", EXIT_IO)
    except Exception as error:
        _leave(f"transduce: internal error: {type(error).__name__}: {error}", EXIT_INTERNAL)


def _leave(message: str, code: int) -> None:
    """Print one message (and the traceback where the user asked for it) and exit."""
    if os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0"):
        traceback.print_exc()
    elif code == EXIT_INTERNAL:
        message += f"\nThis is a bug in transduce. {TRACEBACK_VARIABLE}=1 before the command shows where it happened."
    print(message, file=sys.stderr)
    sys.exit(code)
