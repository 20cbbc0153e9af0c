"""Prediction of tracks: sources in, what comes next out, in the order given, one forecast for each.

The counterpart of `predict.py` for targets that are numbers. The decision to question: how many steps are predicted is, unless
the settings say otherwise, what the model was trained to predict (`data.windows.predicted`), or until it says stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.data.codec import as_frames_codec
from transduce.data.frames import FramesCodec, row_keys
from transduce.data.loader import DataConfig
from transduce.data.values import Track, Value
from transduce.data.windows import anchor_of
from transduce.decode.batches import plan_batches
from transduce.decode.rollout import Rollout, RolloutConfig, rollout
from transduce.model.steps import steps_head
from transduce.readings import LengthCeilings, Member, Readings, evaluation, read_values

if TYPE_CHECKING:
    from transduce.train.loss import LossConfig

BATCH_STEPS = 8192  # source steps, padding included, that are rolled out at once

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Forecast:
    """What the model expects to follow one source, in the user's units.

    values: (T, C), the expected track. samples: K tracks (T, C) drawn at random, with log_probabilities (K,) in nats of the normalised
    frames; empty unless asked for. truncated: the model had not said stop. flags, problem: as of a text prediction; a flagged source has no
    frames.
    """

    values: Frames
    samples: tuple[Frames, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    truncated: bool = False
    flags: tuple[str, ...] = ()
    problem: str = ""


class Forecaster:
    """A model whose target is numbers, ready to predict. data, loss: how its data was read and what it was trained by, if it tells."""

    def __init__(
        self,
        member: Member,
        target_codec: FramesCodec,
        *,
        settings: RolloutConfig,
        ceilings: LengthCeilings | None = None,
        data: DataConfig | None = None,
        loss: "LossConfig | None" = None,
    ) -> None:
        self.member = member
        self.target_codec = target_codec
        self.settings = settings
        self.ceilings = ceilings or LengthCeilings()
        self.data = data
        self.loss = loss

    @classmethod
    def load(cls, path: Path | str, *, threads: int | None = None) -> "Forecaster":
        """From a run folder or a model directory. Raises CheckpointError, ConfigError (the model writes text)."""
        from transduce.train.checkpoint import load_model, resolve_model  # here: training must not be imported to predict

        if threads is not None:
            torch.set_num_threads(threads)
        loaded = load_model(resolve_model(Path(path)))
        return cls(
            Member(loaded.model, loaded.source_codec),
            as_frames_codec(loaded.target_codec, "target"),
            settings=loaded.config.rollout,
            ceilings=LengthCeilings(loaded.config.model.max_source_length, loaded.config.model.max_target_length),
            data=loaded.config.data,
            loss=loaded.config.train.loss,
        )

    def predict(self, sources: Sequence[Value], *, settings: RolloutConfig | None = None, first_line: int = 1) -> list[Forecast]:
        """One forecast per source, in the order given. Raises DataError for a source that is too long."""
        stretches = read_values([self.member], sources, longest=self.ceilings.source, refuse=True, first_line=first_line)
        return [forecast for readings in stretches for forecast in self._forecasts(readings, self._limited(settings or self.settings))]

    def _limited(self, settings: RolloutConfig) -> RolloutConfig:
        """The settings with a number of steps where the model cannot say stop, none beyond what it was built for."""
        steps = settings.steps
        if steps is None and not steps_head(self.member.model.head).stops and self.data is not None and self.data.windows is not None:
            steps = self.data.windows.predicted
        return settings.model_copy(update={"steps": steps, "max_steps": min(settings.max_steps, self.ceilings.target)})

    def _forecasts(self, readings: Readings, wanted: RolloutConfig) -> list[Forecast]:
        size = len(self.target_codec.scale)
        results = [
            Forecast(np.zeros((0, size), dtype=np.float32), flags=flags, problem=readings.problem(number))
            for number, flags in enumerate(readings.flags)
        ]
        numbers = readings.searchable()
        plan = plan_batches([readings.lengths[number] for number in numbers], budget=BATCH_STEPS, rows_each=max(wanted.num_samples, 1))
        with evaluation([self.member]):
            for places in plan:
                batch = [numbers[place] for place in places]
                found = self._roll(readings, batch, wanted)
                for row, number in enumerate(batch):
                    results[number] = self._forecast(found, row, source=readings.values[number], flags=readings.flags[number])
        return results

    def _roll(self, readings: Readings, batch: Sequence[int], settings: RolloutConfig) -> Rollout:
        keys = row_keys([readings.first(number).data for number in batch])
        device = next(self.member.model.parameters()).device
        return rollout(self.member.model, readings.padded(batch, device)[0], config=settings, keys=keys)

    def _forecast(self, found: Rollout, row: int, *, source: Value, flags: tuple[str, ...]) -> Forecast:
        anchor = _anchor(source)

        def decoded(frames: torch.Tensor, length: torch.Tensor) -> Frames:
            return self.target_codec.decode(frames[..., : int(length), :].cpu().numpy(), anchor)

        samples: tuple[Frames, ...] = ()
        if found.samples is not None and found.sample_lengths is not None:
            lengths = found.sample_lengths[row]
            if bool((lengths == lengths[0]).all()):  # as most are: all at once takes a twentieth of the time
                samples = tuple(decoded(found.samples[row], lengths[0]))
            else:
                samples = tuple(decoded(*one) for one in zip(found.samples[row], lengths, strict=True))
        logs = () if found.log_probability is None else tuple(found.log_probability[row].tolist())
        return Forecast(decoded(found.values[row], found.lengths[row]), samples, logs, bool(found.truncated[row]), flags)


def _anchor(source: Value) -> Frames | None:
    """The last two observed steps of a source of numbers."""
    match source:
        case Track():
            return anchor_of(source.values)
    return None
