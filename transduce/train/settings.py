"""The settings of a training run, apart from the loop so that reading a config never imports the loop.

In: the `train:` group of a config. Out: frozen values. Parts that have a file of their own keep their settings there.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from transduce.metrics.tracks import TrackMetric
from transduce.settings import Settings
from transduce.train.loss import LossConfig
from transduce.train.objective import ForcingConfig
from transduce.train.optim import OptimizerConfig
from transduce.train.schedule import ScheduleConfig

TextMetric = Literal["bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "wer", "cer", "exact_match", "per"]
CaptionMetric = Literal["coco_bleu1", "coco_bleu2", "coco_bleu3", "coco_bleu4", "coco_rougeL", "cider"]
MetricName = Literal["loss"] | TextMetric | CaptionMetric | TrackMetric


class ValidationConfig(Settings):
    """What is measured on the validation pairs, and how much of them."""

    metrics: tuple[MetricName, ...] = ("bleu", "chrf")
    """Scores of generated text, besides the loss. Empty = generate nothing but the samples."""
    beam: int = Field(default=1, ge=1)
    """Beam width of validation; prediction has its own in `search`."""
    sentences: int = Field(default=0, ge=0)
    """Generate for this many pairs, evenly spread; 0 = all."""
    samples: int = Field(default=5, ge=0)
    """Fixed pairs whose translations are kept over time in `samples/`."""
    source_check_after: int = Field(default=500, ge=0)
    """From this step on, warn when wrong sources cost the decoder less than 2 % of loss: it ignores the source."""


class TrainConfig(Settings):
    """How long, how fast, how often. The first limit that is reached ends the run cleanly."""

    start_from: Path | None = None
    """A run folder or model directory: training starts with its codecs, whatever `data` says of them, and with those of its weights that
    have the name and shape of one here (fine-tuning, or a student with layers of its teacher)."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Limit in minutes of training and validation, counted over resumes."""
    max_steps: int | None = Field(default=None, ge=1)
    """Limit in optimiser steps."""
    max_epochs: int | None = Field(default=None, ge=1)
    """Limit in passes over the training data."""
    early_stop_patience: int = Field(default=0, ge=0)
    """End after this many validations without a better `metric`; 0 = never."""
    save_every_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    validate_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations; null = `save_every_steps`."""
    log_every_steps: int = Field(default=10, ge=1)
    """Steps between progress reports."""
    metric: MetricName = "loss"
    """What decides which checkpoint is best, early stopping and the plateau schedule."""
    keep_best: int = Field(default=1, ge=0)
    """Best checkpoints kept on disk (at least `average_best`)."""
    keep_last: int = Field(default=3, ge=1)
    """Newest checkpoints kept on disk."""
    average_best: int = Field(default=0, ge=0)
    """The final model is the mean of the weights of this many best checkpoints; 0 or 1 = the best one alone."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per optimiser step."""
    clip_norm: float = Field(default=1.0, ge=0)
    """Largest gradient norm of a step; 0 = no clipping."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights (warmed up), used for validation and the model; 0 = off."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Type of matrix products; auto = bf16 where the processor or GPU has the instructions. Weights stay fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto = a GPU when torch sees one."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of a tensor operation; null = the physical cores that the process may use."""
    processes: int | None = Field(default=None, ge=1)
    """Processes that share the work of a step on a CPU, one thread each; null = one for each thread where there are two to four, on Linux;
    1 = this one alone, with all threads. Another number draws other random numbers."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How a gradient becomes a step."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate over time."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    forcing: ForcingConfig = ForcingConfig()
    """How often the decoder sees its own predictions instead of the true previous token."""
    validation: ValidationConfig = ValidationConfig()
    """What is measured on the validation pairs."""

    @property
    def validation_interval(self) -> int:
        """Steps between validations."""
        return self.validate_every_steps or self.save_every_steps
