"""Everything that changes while training, and one optimiser step.

In: batches. Out: changed weights and the figures of the step. The loss of a step is the sum over all its tokens divided
by their number, whatever micro-batches they came in. Randomness is seeded per micro-batch from (seed, step, micro), so
that a resumed run is the same run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from transduce.config import RunConfig
from transduce.data.batch import Batch
from transduce.data.codec import Codec
from transduce.errors import DivergedError
from transduce.model.seq2seq import Seq2Seq, build_model
from transduce.train.averaging import MovingAverage
from transduce.train.checkpoint import Restored, Snapshot, put_tensors
from transduce.train.objective import forcing_ratio, training_loss
from transduce.train.optim import build_optimizer, optimizer_tensors, restore_optimizer, set_learning_rate
from transduce.train.parallel import Helpers, Job, StepSums
from transduce.train.precision import Precision
from transduce.train.pretrained import start_frontend, take_weights
from transduce.train.schedule import learning_rate_factor
from transduce.train.state import RunState, mixed_seed

INITIAL_SEED_STEP = 0


@dataclass(frozen=True)
class StepFigures:
    """What one optimiser step saw. loss: sum over its tokens, nats; norm: of the gradient before clipping."""

    loss: float
    tokens: int
    norm: float
    learning_rate: float


class Trainer:
    """Model, optimiser, moving average and state of one run."""

    def __init__(self, config: RunConfig, codecs: tuple[Codec, Codec], precision: Precision, *, fresh: bool = True) -> None:
        """fresh: the run begins, so that weights which it or the front-end starts from are read; a resumed one has its own."""
        self.config = config
        self.settings = config.train
        self.precision = precision
        seed_device(precision.device, mixed_seed(config.seed, INITIAL_SEED_STEP))
        self.model: Seq2Seq = build_model(config.model, codecs[0].shape, codecs[1].shape).to(precision.device)
        if fresh:
            start_frontend(self.model.frontend, config.model.frontend)
        origin = self.settings.start_from if fresh else None
        self.started = "" if origin is None else take_weights(self.model, origin)  # what was taken, for people
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(self.settings.optimizer, self.model)
        self.average = MovingAverage(self.model, self.settings.ema_decay) if self.settings.ema_decay else None
        self.state = RunState(precision=str(precision))
        self.metrics: dict[str, float] = {}  # of the newest validation
        self.employ(1)
        self.unaligned = 0  # pairs of the newest `gradients` that had no CTC path

    @property
    def evaluated(self) -> Seq2Seq:
        """The model that is validated and stored for prediction."""
        return self.model if self.average is None else self.average.model

    def gradients(self, batches: list[Batch], *, between: Callable[[], None]) -> tuple[float, int]:
        """Forward and backward of one step -> summed loss and tokens. Nothing of the run's state changes.

        `between` is called before each micro-batch and may raise to give the step up. Raises DivergedError.
        """
        self.optimizer.zero_grad(set_to_none=True)
        count = sum(int(batch.target.lengths.sum()) for batch in batches)
        job = self.helpers.start(self.state.step + 1, count, batches)
        sums = self.helpers.finish(self._add_gradients(job, between))
        self.unaligned = sums.unaligned
        if not math.isfinite(sums.loss):
            raise self._diverged(f"the loss is {sums.loss}")
        return sums.loss, count

    def employ(self, processes: int) -> None:
        """From now on as many processes, this one counted, compute the gradients of a step. To be called before the first step."""
        self.helpers = Helpers(self.parameters, lambda job: self._add_gradients(job, lambda: None), count=processes - 1)

    def _add_gradients(self, job: Job, between: Callable[[], None]) -> StepSums:
        """Forward and backward of a share of a step; gradients are added to those that are there."""
        self.model.train()
        total, unaligned = 0.0, 0
        forced = forcing_ratio(self.settings.forcing, job.step)
        for micro, batch in enumerate(job.batches):
            between()
            if not len(batch.ids):  # fewer rows than processes
                continue
            seed_device(self.precision.device, mixed_seed(self.config.seed, job.step, micro, *([job.share] if job.share else [])))
            with self.precision.autocast():
                sums = training_loss(self.model, batch.to(self.precision.device), loss=self.settings.loss, forced=forced)
            (sums.loss / job.count).backward()  # type: ignore[no-untyped-call]
            total += float(sums.loss.detach())
            unaligned += sums.unaligned
        return StepSums(total, unaligned)

    def apply(self, loss: float, tokens: int, *, progress: float) -> StepFigures:
        """Clip, step, average; the state counts one step more. `progress` is the share of the run that is done."""
        norm_tensor = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm or math.inf)
        norm = float(norm_tensor)
        if not math.isfinite(norm):
            raise self._diverged(f"the gradient norm is {norm}")
        learning_rate = self.learning_rate(progress)
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.state.step += 1
        self.state.tokens += tokens
        if self.average is not None:
            self.average.update(self.state.step)
        return StepFigures(loss, tokens, norm, learning_rate)

    def learning_rate(self, progress: float) -> float:
        """Of the next step."""
        step, width = self.state.step + 1, self.model.decoder.output_size
        factor = learning_rate_factor(self.settings.schedule, step, progress=progress, width=width, plateau=self.state.plateau)
        return self.settings.optimizer.learning_rate * factor

    def snapshot(self) -> Snapshot:
        """What a checkpoint must hold of this moment."""
        training = None if self.average is None else self.model
        metrics = self.metrics if self.state.validated_step == self.state.step else {}
        return Snapshot(self.evaluated, training, optimizer_tensors(self.optimizer, self.model), self.state, metrics)

    def restore(self, restored: Restored, place: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError where it does not fit."""
        put_tensors(self.model, restored.weights, place=place)
        if self.average is not None:
            put_tensors(self.average.model, restored.average or restored.weights, place=place)
        restore_optimizer(self.optimizer, self.model, restored.optimizer)
        self.state = restored.state
        self.metrics = restored.metrics

    def _diverged(self, what: str) -> DivergedError:
        now: Mapping[str, object] = {
            "train.optimizer.learning_rate": self.settings.optimizer.learning_rate,
            "train.schedule.warmup_steps": self.settings.schedule.warmup_steps,
            "train.clip_norm": self.settings.clip_norm,
        }
        return DivergedError(
            f"training diverged at step {self.state.step + 1}: {what} (learning rate {self.learning_rate(0.0):.3g}, {self.precision}). "
            "The checkpoints saved before are kept. Try a lower learning rate, a longer warm-up, a smaller clip_norm, or "
            "train.precision=fp32; now " + ", ".join(f"{name}={value}" for name, value in now.items())
        )


def seed_device(device: torch.device, seed: int) -> None:
    """Seed torch's generators of the CPU and of `device`. torch.manual_seed would also queue a call, with a stack trace, for each
    kind of device that is not there: three traces a step that are never freed."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
