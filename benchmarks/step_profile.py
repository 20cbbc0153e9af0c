"""Where the time of a training step goes: `python benchmarks/step_profile.py transformer-small rnn-luong --json step_profile.json`.

In: names of presets, which get made-up data, or configuration files with data of their own; none = every preset. Out: per configuration
the milliseconds and shares of waiting for data, front-end, encoder, decoder, loss, optimiser and the rest; the share of the floor; the
operations that cost most.

The decision to question: the phases are told apart by hooks on the model's parts, in the trainer that `transduce train` uses, so that
nothing is measured but what runs. The loss is one phase, forward and backward, because it computes its gradient on the way forward.
CTC's backward pass counts
as the decoder's. Operations are counted by torch's profiler in steps of their own: it slows small ones down.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from alternate import Load, Record, options, say_machine, say_table, write_json
from ceiling import training_peaks
from generated import generated_data
from shape import TINY, Shape
from torch.utils.flop_counter import FlopCounterMode

from transduce.config import PRESET_FOLDER, RunConfig, parse_config, preset_names
from transduce.data.batch import Batch
from transduce.model import blocked
from transduce.model.interface import Memory
from transduce.model.seq2seq import Seq2Seq
from transduce.train.checkpoint import RunFolder
from transduce.train.loop import Feed
from transduce.train.setup import Parts, prepare_run
from transduce.tree import Tree, parse_words, read_tree

PHASES = ("data", "front-end", "encoder", "decoder", "loss", "optimiser", "other")
EXAMPLES = {"audio": 200, "image": 400, "frames": 4000}
TEXT_EXAMPLES = 6000
FEWEST_EXAMPLES = 40
PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::addmm_",
    "aten::bmm",
    "aten::baddbmm",
    "aten::mkldnn_convolution",
    "aten::convolution_backward",
    "mkldnn::_linear_pointwise",
}
SHOWN_OPERATIONS = 12


class Stopwatch:
    """Seconds by phase: each `lap` gives the time since the last one to the phase that has just ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.last = time.perf_counter()
        self.first_part = "front-end"
        """What is differentiated last: without a source, the decoder."""

    def start(self) -> None:
        """Forget the time since the last lap."""
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """The time since the last lap was `phase`."""
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


@contextmanager
def watched(model: Seq2Seq, watch: Stopwatch) -> Iterator[None]:
    """Laps where the parts of the model begin and end, forward and backward, inside the context."""

    def after_encoder(_module: object, inputs: tuple[Any, ...], memory: Memory) -> None:
        watch.lap("encoder")
        watch.first_part = "front-end" if memory.states.requires_grad or memory.summary.requires_grad else "decoder"
        for tensor in (memory.states, memory.summary):  # whichever the decoder looks at
            on_gradient(tensor, lambda: watch.lap("decoder"))
        if inputs[0] is not memory.states:
            on_gradient(inputs[0], lambda: watch.lap("encoder"))

    def after_decoder(_module: object, _inputs: object, outputs: tuple[torch.Tensor, object]) -> None:
        watch.lap("decoder")
        on_gradient(outputs[0], lambda: watch.lap("loss"))

    handles = [
        model.frontend.register_forward_pre_hook(lambda *_: watch.lap("other")),
        model.frontend.register_forward_hook(lambda *_: watch.lap("front-end")),
        model.encoder.register_forward_hook(after_encoder),
        model.decoder.register_forward_hook(after_decoder),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_gradient(tensor: torch.Tensor, call: Callable[[], None]) -> None:
    """Call when the whole gradient of `tensor` is known, if there is one."""
    if tensor.requires_grad:
        tensor.register_hook(lambda _: call())


def one_step(parts: Parts, batches: list[Batch], watch: Stopwatch) -> None:
    """Gradients and update, as the training loop does them."""
    loss, tokens = parts.trainer.gradients(batches, between=lambda: None)
    watch.lap(watch.first_part)  # what the backward pass did after the encoder's inputs
    parts.trainer.apply(loss, tokens, progress=0.0)
    watch.lap("optimiser")


def time_phases(parts: Parts, feed: Feed, *, steps: int, warmup: int) -> tuple[dict[str, float], list[float], list[list[Batch]]]:
    """Milliseconds of a step by phase (means), seconds of each step, and the batches that were fed."""
    watch, times, fed = Stopwatch(), [], []
    with watched(parts.trainer.model, watch):
        for number in range(warmup + steps):
            if number == warmup:
                watch.seconds = dict.fromkeys(PHASES, 0.0)
            watch.start()
            begin = watch.last
            batches = feed.take(parts.trainer.settings.accumulate, max_epochs=None)
            watch.lap("data")
            one_step(parts, batches, watch)
            times.append(watch.last - begin)
            fed.append(batches)
    return {phase: 1000 * seconds / steps for phase, seconds in watch.seconds.items()}, times[warmup:], fed[warmup:]


def count_flop(parts: Parts, fed: list[list[Batch]]) -> float:
    """Floating-point operations of the matrix products of a step, padding included; the mean over the batches."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter, library_products():
        for batches in fed:
            parts.trainer.gradients(batches, between=lambda: None)
    return counter.get_total_flops() / len(fed)


@contextmanager
def library_products() -> Iterator[None]:
    """Products by libraries alone: torch's counter does not see those of our own loops."""
    own, blocked.has_blocks = blocked.has_blocks, lambda *_: False
    try:
        yield
    finally:
        blocked.has_blocks = own


def product_in_place(_total: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
    """total += left @ right, which torch's counter does not know."""
    return 2 * left[0] * left[1] * right[1]


def fused_attention(queries: torch.Size, keys: torch.Size, values: torch.Size, *_: object, **__: object) -> int:
    """The two products of torch's fused attention on a processor, (B, H, T, K) each."""
    rows, heads, length, width = queries
    return 2 * rows * heads * length * keys[2] * (width + values[3])


def fused_attention_backward(
    _gradient: torch.Size, queries: torch.Size, keys: torch.Size, values: torch.Size, *_: object, **__: object
) -> int:
    """Five products for two: the scores are computed again."""
    return fused_attention(queries, keys, values) * 5 // 2


def own_product(rows: torch.Size, matrix: torch.Size, *_: object, **__: object) -> int:
    """oneDNN's own call: rows (M, K), matrix (N, K)."""
    return 2 * rows[0] * rows[1] * matrix[0]


COUNTED = {
    torch.ops.aten.addmm_: product_in_place,
    torch.ops.mkldnn._linear_pointwise: own_product,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: fused_attention_backward,
}


def costly_operations(parts: Parts, fed: list[list[Batch]]) -> list[Record]:
    """The operations that take most time by themselves: milliseconds and calls of a step, share of all."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for batches in fed:
            one_step(parts, batches, Stopwatch())
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events) or 1
    return [
        {
            "operation": event.key,
            "ms": event.self_cpu_time_total / 1000 / len(fed),
            "calls": event.count / len(fed),
            "share": event.self_cpu_time_total / total,
        }
        for event in events[:SHOWN_OPERATIONS]
    ]


def first_to_mend(phases: dict[str, float], operations: list[Record]) -> str:
    """What the figures point at: waiting, if it is a tenth; else the costliest operation that is no matrix product."""
    if phases["data"] > 0.1 * sum(phases.values()):
        return "waiting for data"
    others = [entry for entry in operations if entry["operation"] not in PRODUCTS]
    return f"{others[0]['operation']} ({others[0]['share']:.0%})" if others else ""


def profile(config: RunConfig, *, steps: int, warmup: int, peaks: dict[str, float]) -> Record:
    """Everything about one configuration. Its run folder gets no checkpoint."""
    parts = prepare_run(config, RunFolder(config.run_dir), say=lambda line: print(f"  {line}", file=sys.stderr))
    feed = Feed(parts.loader, 0, 0)
    phases, times, fed = time_phases(parts, feed, steps=steps, warmup=warmup)
    operations = costly_operations(parts, fed[: max(1, steps // 3)])
    parts.trainer.helpers.stop()  # what they multiply is counted here
    flop = count_flop(parts, fed)
    precision = str(parts.info["precision"])
    peak = peaks["bf16" if precision.startswith("bf16") else "fp32"]
    tokens = sum(int(batch.target.lengths.sum()) for batches in fed for batch in batches)
    mean = sum(times) / len(times)
    return {
        "precision": precision,
        "parameters": parts.info["parameters"],
        "ms_per_step": 1000 * mean,
        "median_ms": 1000 * statistics.median(times),
        "target_tokens_per_second": tokens / sum(times),
        "phases_ms": phases,
        "gflop_per_step": flop / 1e9,
        "share_of_floor": flop / 1e9 / peak / mean,
        "padding_share": parts.loader.padding_share(0),
        "operations": operations,
        "first_to_mend": first_to_mend(phases, operations),
    }


def configuration(what: str, folder: Path, *, words: Tree, quick: bool) -> RunConfig:
    """A configuration file as it is, or a preset with made-up data; `words` on top. Runs go into `folder`."""
    run = {"run_dir": str(folder / "run"), "train": {"max_steps": 1}}
    if Path(what).is_file():
        return parse_config({**read_tree(Path(what)), "run_dir": str(folder / "run")}, words)
    kind = read_tree(PRESET_FOLDER / f"{what}.yaml").get("data", {}).get("source_codec", {}).get("kind", "sentencepiece")
    count = FEWEST_EXAMPLES if quick else EXAMPLES.get(kind, TEXT_EXAMPLES)
    return parse_config({"preset": what, **run, "data": generated_data(kind, folder, count)}, words)


def say_profile(what: str, found: Record) -> None:
    """The tables of one configuration."""
    total = sum(found["phases_ms"].values())
    print(f"\n{what}: {found['ms_per_step']:.0f} ms a step, {found['target_tokens_per_second']:,.0f} target tokens/s, {found['precision']}")
    floor = f"{found['gflop_per_step']:.1f} GFLOP of products a step, {found['share_of_floor']:.0%} of the floor"
    print(f"{floor}; mend first: {found['first_to_mend']}")
    say_table(["phase", "ms", "share"], [[name, ms, f"{ms / total:.0%}"] for name, ms in found["phases_ms"].items()])
    rows = [[entry["operation"], entry["ms"], entry["calls"], f"{entry['share']:.0%}"] for entry in found["operations"]]
    say_table(["operation", "ms a step", "calls", "share"], rows)


def say_summary(results: dict[str, Record]) -> None:
    """One row per configuration."""
    rows = []
    for what, found in results.items():
        total = sum(found["phases_ms"].values())
        shares = [f"{ms / total:.0%}" for ms in found["phases_ms"].values()]
        figures = [found["ms_per_step"], found["target_tokens_per_second"], f"{found['share_of_floor']:.0%}"]
        rows.append([what, found["precision"].split()[0], *figures, *shares, found["first_to_mend"]])
    print()
    say_table(["configuration", "precision", "ms a step", "target tokens/s", "of the floor", *PHASES, "mend first"], rows)


def main() -> int:
    """Always 0: there is nothing that must be reached."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("what", nargs="*", help="presets or configuration files; none = every preset")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes, as for `transduce train`")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    words = parser.parse_args()
    quick, threads = words.quick, f"train.threads={words.threads}"
    steps, warmup = (2, 1) if quick else (words.steps, words.warmup)
    load, facts = Load(), say_machine(words.threads, torch=torch.__version__)
    peaks = training_peaks(TINY if quick else Shape(), threads=words.threads, seconds=0.01 if quick else 1.0)
    print(f"peaks         {', '.join(f'{name} {rate:.0f}' for name, rate in peaks.items())} GFLOP/s")
    results = {}
    for what in words.what or preset_names():
        with tempfile.TemporaryDirectory() as folder:
            config = configuration(what, Path(folder), words=parse_words([threads, *words.set]), quick=quick)
            results[what] = profile(config, steps=steps, warmup=warmup, peaks=peaks)
        say_profile(what, results[what])
    say_summary(results)
    write_json(words.json, {"machine": facts, "peaks_gflops": peaks, "configurations": results, "disturbance": load.warn()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
