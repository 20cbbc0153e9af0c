"""The training loop, from a configuration to a model directory. Read `_Session.steps` first.

In: a `RunConfig`, or the folder of a run to continue. Out: the path of the finished model. The decision to question: a
signal is answered at once while nothing of the state is changing (data, forward, backward, validation) and waits for the end of
the few lines where it is (optimiser step, save); the state is saved in both cases, so `resume` continues bit for bit.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from transduce.allocator import Heap
from transduce.config import RunConfig, load_config
from transduce.data.batch import Batch
from transduce.data.loader import Loader
from transduce.errors import CheckpointError, ConfigError, Interrupted, StorageError
from transduce.train.checkpoint import CONFIG, RunFolder
from transduce.train.events import ProgressSink, StepReport
from transduce.train.finish import finish_model
from transduce.train.limits import end_reason, eta_seconds, progress_share
from transduce.train.lock import RunLock
from transduce.train.meter import Meter, memory_mib
from transduce.train.progress import Progress
from transduce.train.setup import Parts, absolute_paths, prepare_run
from transduce.train.signals import SignalGuard
from transduce.train.storage import write_line
from transduce.train.trainer import StepFigures


def train(config: RunConfig, output: ProgressSink | None = None, *, resume: bool = False) -> Path:
    """Train as `config` says; the folder of the finished model. With `resume`, go on where the run in `config.run_dir` stopped.

    Raises ConfigError, DataError, StorageError, CheckpointError (run folder in use or already holding a run), DivergedError,
    Interrupted (SIGTERM: 75, SIGINT: 130, after a checkpoint was saved).
    """
    settings = config.train
    if not (settings.max_minutes or settings.max_steps or settings.max_epochs or settings.early_stop_patience):
        raise ConfigError("train has no end: set train.max_minutes, train.max_steps, train.max_epochs or train.early_stop_patience")
    run = RunFolder(config.run_dir)
    with SignalGuard() as guard, RunLock(run.path):
        if run.started and not resume:
            raise CheckpointError(f"{run.path} already holds a run: use `transduce resume {run.path}`, or choose another run_dir")
        write_line(run.path / CONFIG, absolute_paths(config).to_yaml().rstrip("\n"))
        return _run(config, run, guard=guard, output=output or Progress(run.path))


def resume(run_dir: Path, overrides: Sequence[str] = (), output: ProgressSink | None = None) -> Path:
    """Continue the run in a folder; it needs nothing else. `overrides` change settings, e.g. ["train.max_minutes=60"].

    Raises CheckpointError when the folder holds no run, and what `train` raises.
    """
    run_dir = Path(run_dir)
    if not (run_dir / CONFIG).is_file():
        raise CheckpointError(f"{run_dir} holds no run: {CONFIG} is missing")
    config = load_config(run_dir / CONFIG, overrides).model_copy(update={"run_dir": run_dir})
    return train(config, output, resume=True)


def _run(config: RunConfig, run: RunFolder, *, guard: SignalGuard, output: ProgressSink) -> Path:
    """Prepare, train, finish; on a signal, save."""
    session: _Session | None = None
    try:
        with guard.at_once():
            parts = prepare_run(config, run, say=output.message)
        session = _Session(parts, run, guard=guard, output=output)
        output.start(parts.info)
        reason = session.steps()
        with guard.at_once():
            summary = finish_model(run, parts.trainer, loader=parts.loader, validator=parts.validator, codecs=parts.codecs)
    except Interrupted as signal:
        raise _saved(signal, session, run=run, output=output) from None
    except BaseException as error:
        with suppress(StorageError):  # the first error is the one to report
            output.finish({"ended": f"{type(error).__name__}: {error}"})
        raise
    finally:
        if session is not None:
            session.parts.trainer.helpers.stop()
    output.finish({"ended": reason, **summary})
    return run.model


def _saved(signal: Interrupted, session: "_Session | None", *, run: RunFolder, output: ProgressSink) -> Interrupted:
    """Save what is not saved yet; the same signal with the way to go on in its message."""
    if session is not None:
        session.save()
    step = 0 if session is None else session.parts.trainer.state.step
    what = f"the checkpoint of step {step} is saved" if step else "nothing new was trained"
    told = Interrupted(f"{signal}: {what}. Continue with: transduce resume {run.path}")
    told.exit_code = signal.exit_code
    output.finish({"ended": str(signal), "step": step})
    return told


class _Session:
    """One process's part of a run: the steps from where it stands to the end."""

    def __init__(self, parts: Parts, run: RunFolder, *, guard: SignalGuard, output: ProgressSink) -> None:
        self.parts = parts
        self.settings = parts.trainer.settings
        self.run = run
        self.guard = guard
        self.output = output
        self.saved_step = parts.trainer.state.step
        self.meter = Meter()
        self.heap = Heap()

    def steps(self) -> str:
        """Steps, validations and saves until a limit is reached; why it ended."""
        trainer, state, settings = self.parts.trainer, self.parts.trainer.state, self.settings
        feed = Feed(self.parts.loader, state.epoch, state.batch)
        spent, begin = state.minutes, time.monotonic()
        while True:
            ending = end_reason(settings, state)
            due = state.step % settings.validation_interval == 0
            if state.step > state.validated_step and (due or ending):
                self.validate()
                ending = ending or end_reason(settings, state)
            if due or ending or state.step % settings.save_every_steps == 0:
                self.save()
            self.guard.check()
            if ending:
                return ending

            share = progress_share(settings, state, num_batches=feed.num_batches)
            started = time.monotonic()
            with self.guard.at_once():
                batches = feed.take(settings.accumulate, max_epochs=settings.max_epochs)
                fetched = time.monotonic()
                loss, tokens = trainer.gradients(batches, between=self.guard.check)
            figures = trainer.apply(loss, tokens, progress=share)
            state.epoch, state.batch = feed.epoch, feed.batch
            state.minutes = spent + (time.monotonic() - begin) / 60
            self.meter.add(batches, loss=loss, norm=figures.norm, seconds=time.monotonic() - started, waited=fetched - started)
            self.meter.unaligned += trainer.unaligned
            self.heap.check()
            if state.step % settings.log_every_steps == 0:
                self.report(figures, feed.num_batches)

    def validate(self) -> None:
        """Measure, which a signal may stop; then note the result, which it may not."""
        trainer, state, validator = self.parts.trainer, self.parts.trainer.state, self.parts.validator
        begin = time.monotonic()
        with self.guard.at_once():
            measured = validator.measure(trainer.evaluated)
        trainer.metrics = measured.metrics
        keep = max(self.settings.keep_best, self.settings.average_best)
        improved = state.record(measured.metrics[self.settings.metric], better=validator.better, keep=keep)
        state.plateau = state.plateau.after_validation(self.settings.schedule, improved)
        self.saved_step = 0  # a checkpoint of this step from before an interruption does not know the result
        self.output.validation(state.step, {**measured.metrics, "seconds": time.monotonic() - begin})
        if measured.samples:
            self.output.sample(state.step, measured.samples)
        for warning in validator.alarms(measured.metrics, state.step):
            self.output.message(warning)

    def save(self) -> None:
        """A checkpoint of the present step, unless there is one."""
        trainer = self.parts.trainer
        if trainer.state.step > self.saved_step:
            self.run.save(trainer.snapshot(), config=trainer.config, codecs=self.parts.codecs, keep_last=self.settings.keep_last)
            self.saved_step = trainer.state.step

    def report(self, figures: StepFigures, num_batches: int) -> None:
        """Hand the sums since the last report to whoever shows them."""
        meter, state = self.meter, self.parts.trainer.state
        self.meter = Meter()
        report = StepReport(
            step=state.step,
            epoch=state.epoch,
            loss=meter.loss / max(meter.tokens, 1),
            tokens_per_second=meter.tokens / max(meter.seconds, 1e-9),
            padding_share=1 - meter.real / max(meter.cells, 1),
            learning_rate=figures.learning_rate,
            gradient_norm=meter.norm,
            memory_mib=memory_mib(self.parts.trainer.precision.device),
            eta_seconds=eta_seconds(self.settings, state, num_batches=num_batches, seconds_per_step=meter.seconds_per_step),
            data_wait_share=meter.waited / max(meter.seconds, 1e-9),
            unaligned_pairs=meter.unaligned,
        )
        self.output.step(report)


class Feed:
    """The training batches from a place on, epoch after epoch, and the place of the next one."""

    def __init__(self, loader: Loader, epoch: int, batch: int) -> None:
        self.loader = loader
        self.epoch, self.batch = epoch, batch
        self.num_batches = loader.num_batches(epoch)
        self._batches = loader.batches(epoch, batch)

    def take(self, count: int, *, max_epochs: int | None) -> list[Batch]:
        """The next `count` batches; fewer only where the last epoch ends."""
        taken: list[Batch] = []
        while len(taken) < count and (max_epochs is None or self.epoch < max_epochs):
            taken.append(next(self._batches))
            self.batch += 1
            if self.batch == self.num_batches:
                self.epoch, self.batch = self.epoch + 1, 0
                self.num_batches = self.loader.num_batches(self.epoch)
                self._batches = self.loader.batches(self.epoch)
        return taken
