"""When a run ends, how far it is, and how long it will still take.

In: settings and state. Out: a reason, a share, seconds. The first limit that is reached ends the run.
"""

from transduce.train.settings import TrainConfig
from transduce.train.state import RunState


def end_reason(settings: TrainConfig, state: RunState) -> str | None:
    """Why the run is over, or None."""
    if settings.max_steps is not None and state.step >= settings.max_steps:
        return f"max_steps {settings.max_steps} reached"
    if settings.max_epochs is not None and state.epoch >= settings.max_epochs:
        return f"max_epochs {settings.max_epochs} reached"
    if settings.max_minutes is not None and state.minutes >= settings.max_minutes:
        return f"max_minutes {settings.max_minutes:g} reached"
    if settings.early_stop_patience and state.stale >= settings.early_stop_patience:
        return f"early stopping: {settings.metric} was not better in {state.stale} validations"
    return None


def progress_share(settings: TrainConfig, state: RunState, *, num_batches: int) -> float:
    """The largest share of a limit that is used up, 0 to 1; 0 without limits. Schedules follow it."""
    return max((done / limit for done, limit in _limits(settings, state, num_batches)), default=0.0)


def eta_seconds(settings: TrainConfig, state: RunState, *, num_batches: int, seconds_per_step: float) -> float | None:
    """Until the first limit is reached at this pace; None when there is none."""
    left = []
    if settings.max_steps is not None:
        left.append((settings.max_steps - state.step) * seconds_per_step)
    if settings.max_epochs is not None:
        batches = (settings.max_epochs - state.epoch) * num_batches - state.batch
        left.append(batches / settings.accumulate * seconds_per_step)
    if settings.max_minutes is not None:
        left.append((settings.max_minutes - state.minutes) * 60)
    return max(0.0, min(left)) if left else None


def _limits(settings: TrainConfig, state: RunState, num_batches: int) -> list[tuple[float, float]]:
    """(used up, limit) of each limit that is set."""
    pairs = [
        (float(state.step), settings.max_steps),
        (state.minutes, settings.max_minutes),
        (state.epoch + state.batch / max(num_batches, 1), settings.max_epochs),
    ]
    return [(min(done, limit), float(limit)) for done, limit in pairs if limit is not None]
