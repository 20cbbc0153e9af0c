"""How fast search is beside other engines: `python benchmarks/search_speed.py --json search_speed.json`.

In: a model (--model, else one of benchmarks/shape.py is trained first for --train-minutes), on request a student of it, Multi30k, the
environments that benchmarks/peers.py made. Out, for greedy search and beam 5: sentences and tokens a second on the test sentences, with
the batch size (and split of threads) that is best for each engine; the share of the floor, the time of the matrix products alone at the
measured peak of the precision used (benchmarks/ceiling.py); the latency of single sentences on one thread; peak memory; BLEU where weights
are the same.

The decision to question: CTranslate2 searches with the same weights and ends where it wants; Hugging Face has a model of the same shape
with random weights, and each of its outputs is held to the length that ours found, so that both have the same to write.
"""

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sacrebleu
from alternate import (
    TUNED_ALLOCATOR,
    Comparison,
    Load,
    Record,
    Side,
    alternate,
    options,
    say_disturbance,
    say_machine,
    say_table,
    write_json,
)
from ceiling import SEARCHED, search_precision, training_peaks
from pairs import Pairs, prepare_pairs, read_lines
from peers import installed, version_words
from runners.ours_train import run_tree
from shape import TINY, Shape

from transduce.data.codec import as_text_codec
from transduce.processor import cpu_flags
from transduce.train.checkpoint import LoadedModel, load_model

RUNNERS = Path(__file__).resolve().parent / "runners"
OURS, EXACT, STUDENT = "transduce", "transduce fp32", "transduce student"
OURS_BATCHES = ("1024", "2048", "4096", "8192", "16384")
HUGGINGFACE_BATCHES = ("32", "64", "128")
CTRANSLATE2_BATCHES = ("32 examples", "64 examples", "2048 tokens")
BEAMS = ("1", "5")
FORCED_LENGTH = 15
"""Tokens of every output where no side has weights that could tell (gpu.py)."""
SOURCES = "sources.ids"
SAME = "the same weights, every sentence to its own end"
SHAPED = "the same shape, float32, outputs as long as ours are"
SINGLE = "one sentence at a time, one thread, milliseconds"

Plan = dict[str, list[str]]


@dataclass(frozen=True)
class Engine:
    """One side before its plan is known. plan: everything to try; single: the plan of single sentences."""

    name: str
    command: tuple[str, ...]
    plan: Plan
    single: Plan
    environment: tuple[tuple[str, str], ...] = ()

    def side(self, plan: Plan, *more: str) -> Side:
        """A side that follows `plan`."""
        return Side(self.name, (*self.command, "--plan", json.dumps(plan), *more), environment=dict(self.environment))


def output_of(folder: Path, name: str) -> Path:
    """Where an engine writes its outputs, without the end of the name."""
    return folder / name.replace(" ", "-")


def plan_of(settings: Sequence[str]) -> Plan:
    """The same settings for greedy search and beam 5."""
    return {beam: list(settings) for beam in BEAMS}


def our_engine(pairs: Pairs, model: Path, *, engine: str, precision: str, output: Path, what: str = OURS) -> Engine:
    """`Predictor` with one of its engines and a precision; auto and auto is what `transduce predict` does by default."""
    name = " ".join([what, *(word for word in (engine, precision) if word != "auto")])
    asked = ("--engine", engine, "--precision", precision, "--output", str(output_of(output, name)))
    command = (sys.executable, str(RUNNERS / "ours_search.py"), "--pairs", str(pairs.folder), "--model", str(model), *asked)
    return Engine(name, command, plan_of(OURS_BATCHES), plan_of(["4096"]))


def ctranslate2_engines(pairs: Pairs, exported: Path, *, python: Path, threads: int, output: Path) -> list[Engine]:
    """The exported model in float32 and int8, with every split of the threads between workers and products."""
    splits = sorted({(1, threads), (threads, 1)})
    settings = [f"{workers}x{each}:{batch}" for workers, each in splits for batch in CTRANSLATE2_BATCHES]
    words = (str(python), str(RUNNERS / "ctranslate2_search.py"), "--sources", str(output / SOURCES), "--pairs", str(pairs.folder))
    words = (*words, "--model", str(exported))
    found = []
    for kind in ("float32", "int8"):
        name = f"ctranslate2 {kind}"
        command = (*words, "--compute-type", kind, "--output", str(output_of(output, name)))
        found.append(Engine(name, command, plan_of(settings), plan_of(["1x1:1 examples"])))
    return found


def huggingface_engines(pairs: Pairs, shape: Shape, *, python: Path, lengths: Path) -> list[Engine]:
    """`generate`, with the allocator tuned, which it gains from, and as it comes. lengths: what ours wrote, without the end of its name."""
    asked = ("--pairs", str(pairs.folder), "--shape", shape.word(), "--lengths", str(lengths))
    words = (str(python), "-W", "ignore", str(RUNNERS / "huggingface_search.py"), *asked)
    plain = Engine("huggingface", words, plan_of(HUGGINGFACE_BATCHES), plan_of(["1"]))
    return [replace(plain, name="huggingface tuned", environment=tuple(TUNED_ALLOCATOR.items())), plain]


def trained_model(pairs: Pairs, shape: Shape, folder: Path, *, minutes: float, steps: int | None) -> Path:
    """A model directory: trained here by `transduce train`, or found from the last time."""
    run_dir = folder / f"model-{shape.layers}x{shape.width}"
    if not (run_dir / "model").exists():
        limit = {"max_minutes": minutes} if steps is None else {"max_steps": steps}
        validation = {"metrics": [], "samples": 0}
        schedule = {"kind": "cosine", "warmup_steps": 200}
        settings = {**limit, "validation": validation, "schedule": schedule, "ema_decay": 0.99}
        config = folder / "model.yaml"
        config.write_text(json.dumps(run_tree(pairs.folder, vars(shape), run_dir=run_dir, train_settings=settings)), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "transduce", "train", str(config)], check=True, stdout=sys.stderr)
    return run_dir / "model"


def exported_model(model: Path) -> Path | None:
    """The folder that CTranslate2 reads, made by `transduce export`; None, and why on stderr, where that is not possible."""
    done = subprocess.run(
        [sys.executable, "-m", "transduce", "export", str(model), "--format", "ctranslate2"], capture_output=True, text=True
    )
    place = model / "export" / "ctranslate2"
    if done.returncode == 0 and place.exists():
        return place
    print(f"left out: ctranslate2: `transduce export` ended with {done.returncode}: {done.stderr.strip()[-300:]}", file=sys.stderr)
    return None


def run_group(engines: Sequence[Engine], more: Sequence[str], *, rounds: int, threads: int, logs: Path) -> Comparison:
    """Try every setting of every engine once, where there are several, then measure the best ones in turns."""
    tried = Comparison({})
    if any(len(settings) > 1 for engine in engines for settings in engine.plan.values()):
        tried = alternate([engine.side(engine.plan, *more) for engine in engines], rounds=1, threads=threads, logs=logs / "tried")
    left = [engine for engine in engines if engine.name not in tried.failed]
    best = [engine.side(best_plan(tried, engine), *more, "--passes", "2") for engine in left]
    comparison = alternate(best, rounds=rounds, threads=threads, logs=logs / "best")
    comparison.failed |= tried.failed
    return comparison


def best_plan(tried: Comparison, engine: Engine) -> Plan:
    """Per beam width the setting with the most sentences a second."""

    def rate(beam: str, setting: str) -> float:
        return tried.median(engine.name, "sentences_per_second", beam=int(beam), setting=setting)

    if engine.name not in tried.turns:
        return engine.plan
    return {beam: [max(settings, key=lambda setting: rate(beam, setting))] for beam, settings in engine.plan.items()}


def throughput_rows(comparison: Comparison, *, ours: str, bleu: dict[tuple[str, str], float]) -> list[list[object]]:
    """One row per engine and beam width, ours first."""
    rows: list[list[object]] = []
    for beam in BEAMS:
        reference = comparison.median(ours, "sentences_per_second", beam=int(beam)) if ours in comparison.turns else math.nan
        for name, turns in comparison.turns.items():
            setting = next(record["setting"] for record in turns[0].records if record.get("beam") == int(beam))
            rates = [comparison.median(name, f"{what}_per_second", beam=int(beam)) for what in ("sentences", "tokens")]
            rows.append([name, beam, setting, *rates, reference / rates[0], comparison.peak_mib(name), bleu.get((name, beam))])
    return rows


@dataclass(frozen=True)
class Floor:
    """What a search costs at least: GFLOP/s of products by precision (`usual` where a side's name tells none), model and mean source."""

    peaks: dict[str, float]
    usual: str
    shape: Shape
    source: float

    def share(self, row: Sequence[object]) -> str | None:
        """What a row of `throughput_rows` reaches of it, as if every hypothesis were computed to the mean length, with all of the
        vocabulary. None for a student, which has another shape."""
        name, beam, _, sentences, tokens, *_ = row
        if name == STUDENT:
            return None
        flop = self.shape.search_flop(int(str(beam)), source=self.source, target=float(str(tokens)) / float(str(sentences)) + 1)
        return f"{float(str(sentences)) * flop / self.peaks[self._precision(str(name))] / 1e9:.0%}"

    def _precision(self, name: str) -> str:
        if "huggingface" in name or "float32" in name:
            return "fp32"
        return next((precision for precision in self.peaks if precision in name), self.usual)


def floor_of(pairs: Pairs, shape: Shape, loaded: LoadedModel, *, threads: int, seconds: float) -> Floor:
    """Measured now, and printed: after all sides, since what this process has used at most counts as theirs, who begin as its copies."""
    load, peaks = Load(), training_peaks(shape, threads=threads, seconds=seconds, precisions=SEARCHED)
    load.warn()
    usual = search_precision(loaded.model)
    told = ", ".join(f"{name} {rate:.0f}" for name, rate in peaks.items())
    print(f"floor         peaks {told} GFLOP/s; {OURS} computes in {usual}")
    return Floor(peaks, usual, shape, pairs.source)


def latency_rows(comparison: Comparison) -> list[list[object]]:
    """One row per engine: median and 95th percentile in milliseconds, greedy and beam 5."""
    figures = [(what, int(beam)) for beam in BEAMS for what in ("median_ms", "p95_ms")]
    return [[name, *(comparison.median(name, what, beam=beam) for what, beam in figures)] for name in comparison.turns]


def write_sources(pairs: Pairs, loaded: LoadedModel, output: Path) -> None:
    """The test sentences as ids of the model's own codec, for engines that read no text."""
    rows = as_text_codec(loaded.source_codec, "source").encode_many(read_lines(pairs.text("test", "en")))
    (output / SOURCES).write_text("".join(" ".join(map(str, row.tolist())) + "\n" for row in rows), encoding="ascii")


def bleu_of(pairs: Pairs, loaded: LoadedModel, output: Path, *, names: Sequence[str], limit: int | None) -> dict[tuple[str, str], float]:
    """sacreBLEU of what each engine wrote, by engine and beam width."""
    codec, references, found = as_text_codec(loaded.target_codec, "target"), read_lines(pairs.text("test", "de"), limit), {}
    for name in names:
        for beam in BEAMS:
            texts, ids = (output_of(output, name).with_suffix(f".{beam}.{kind}") for kind in ("txt", "ids"))
            if texts.exists():
                lines = read_lines(texts)
            elif ids.exists():
                lines = [codec.decode([int(word) for word in line.split()]) for line in read_lines(ids)]
            else:
                continue
            found[name, beam] = sacrebleu.corpus_bleu(lines, [references]).score
    return found


@dataclass(frozen=True)
class Contest:
    """All engines, ready to be measured. same: with the same weights, ours by default first. exact: ours in fp32, first as `predict` has
    it. shaped: of the same shape only."""

    same: list[Engine]
    exact: list[Engine]
    shaped: list[Engine]


def contest(pairs: Pairs, shape: Shape, model: Path, *, pythons: dict[str, Path], threads: int, output: Path) -> Contest:
    """Who takes part: what is installed."""
    exports = importlib.util.find_spec("transduce.export") is not None
    torch = "torch" if exports else "auto"  # without exports there is no other engine to choose
    asked = (("auto", "auto"), (torch, "fp32"), (torch, "int8"), *(((torch, "bf16"),) if "amx_bf16" in cpu_flags() else ()))
    ours = [our_engine(pairs, model, engine=engine, precision=precision, output=output) for engine, precision in asked]
    exact = [our_engine(pairs, model, engine="auto", precision="fp32", output=output), ours[1]]
    theirs: list[Engine] = []
    exported = exported_model(model) if exports and "ctranslate2" in pythons else None
    if exported is not None:
        theirs = ctranslate2_engines(pairs, exported.absolute(), python=pythons["ctranslate2"], threads=threads, output=output)
    shaped = []
    if "huggingface" in pythons:
        shaped = huggingface_engines(pairs, shape, python=pythons["huggingface"], lengths=output_of(output, EXACT))
    return Contest([*ours, *theirs], exact, shaped)


def quickened(engines: Sequence[Engine]) -> list[Engine]:
    """The same engines with one setting to try."""
    return [replace(engine, plan={beam: settings[:1] for beam, settings in engine.plan.items()}) for engine in engines]


def compare(found: Contest, few: Sequence[str], *, rounds: int, threads: int, single: int, logs: Path) -> dict[str, Comparison]:
    """The comparisons, by name. What the first one writes gives the length of outputs of the same shape."""
    done = {}
    if found.exact:
        done[SHAPED] = run_group([*found.exact, *found.shaped], few, rounds=rounds, threads=threads, logs=logs / "shaped")
    alone = [engine.side(engine.single, *few, "--single", str(single)) for engine in (*found.same, *found.shaped)]
    done[SINGLE] = alternate(alone, rounds=rounds, threads=1, logs=logs / "single")
    done[SAME] = run_group(found.same, few, rounds=rounds, threads=threads, logs=logs / "same")
    return done


def say_tables(comparisons: dict[str, Comparison], bleu: dict[tuple[str, str], float], floor: Floor) -> Record:
    """Print the tables -> their rows, by name."""
    header = ["engine", "beam", "best setting", "sentences/s", "tokens/s", "ours is times", "peak MiB", "BLEU", "of the floor"]
    rows = {SAME: throughput_rows(comparisons[SAME], ours=OURS, bleu=bleu)}
    if SHAPED in comparisons:
        rows[SHAPED] = throughput_rows(comparisons[SHAPED], ours=EXACT, bleu={})
    rows = {name: [[*row, floor.share(row)] for row in table] for name, table in rows.items()}
    rows[SINGLE] = latency_rows(comparisons[SINGLE])
    headers = {SAME: header, SHAPED: header, SINGLE: ["engine", "greedy median", "greedy p95", "beam 5 median", "beam 5 p95"]}
    for name, table in rows.items():
        print(f"\n{name}")
        say_table(headers[name], table)
        say_disturbance(comparisons[name])
    return rows


def main() -> int:
    """Exit code 1 if our side did not run."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--model", type=Path, help="a model directory, English to German")
    parser.add_argument("--student", type=Path, help="a model directory that takes part in the first table, with its own answers")
    parser.add_argument("--train-minutes", type=float, default=15, help="where there is no model yet")
    parser.add_argument("--single", type=int, default=200, help="sentences whose latency is measured")
    parser.add_argument("--no-huggingface", action="store_true", help="leave out the comparison with Hugging Face, the longest one")
    words = parser.parse_args()
    quick, folder = words.quick, words.folder
    shape, rounds, limit, single = (TINY, 1, 24, 4) if quick else (Shape(), words.rounds, None, words.single)
    pairs = prepare_pairs(words.data, folder / f"pairs-{shape.vocabulary}", vocabulary=shape.vocabulary, limit=300 if quick else None)
    shape, output = replace(shape, vocabulary=pairs.vocabulary), folder / "outputs"
    output.mkdir(parents=True, exist_ok=True)
    model = words.model or trained_model(pairs, shape, folder, minutes=words.train_minutes, steps=4 if quick else None)
    pythons = installed(("ctranslate2", "huggingface"), words.peers)
    versions = version_words(pythons)
    facts = say_machine(words.threads, **versions)
    loaded = load_model(model)
    write_sources(pairs, loaded, output)
    found = contest(pairs, shape, model, pythons=pythons, threads=words.threads, output=output)
    if words.no_huggingface:
        found = replace(found, exact=[], shaped=[])
    if words.student:
        found.same.append(our_engine(pairs, words.student, engine="auto", precision="auto", output=output, what=STUDENT))
    if quick:
        found = Contest(quickened(found.same), quickened(found.exact), quickened(found.shaped))
    few = () if limit is None else ("--limit", str(limit))
    comparisons = compare(found, few, rounds=rounds, threads=words.threads, single=single, logs=folder / "logs" / "search")
    floor = floor_of(pairs, shape, loaded, threads=words.threads, seconds=0.02 if quick else 0.5)
    bleu = bleu_of(pairs, loaded, output, names=list(comparisons[SAME].turns), limit=limit)
    tables = say_tables(comparisons, bleu, floor)
    told = {
        name: {"rows": rows, "disturbance": comparisons[name].disturbance(), "failed": comparisons[name].failed}
        for name, rows in tables.items()
    }
    write_json(words.json, {"machine": facts, "shape": shape.word(), "peaks_gflops": floor.peaks, **told})
    return int(OURS not in comparisons[SAME].turns)


if __name__ == "__main__":
    sys.exit(main())
