"""Who scores what a model generates in validation: one judge for texts, one for tracks, with the same three members.

In: a model and validation examples. Out: figures by name and outputs as people read them. Generation goes through
`Predictor` and `Forecaster`, the same path that users take.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, cast

from transduce.config import RunConfig
from transduce.data.codec import TEXT_KINDS, as_frames_codec, as_text_codec
from transduce.data.examples import Record
from transduce.data.loader import PreparedData
from transduce.data.values import Track, shown
from transduce.decode.search import SearchConfig
from transduce.forecast import Forecast, Forecaster
from transduce.metrics import compute_metrics, find_metric
from transduce.metrics.tracks import SAMPLED, better_track_metric, padded_samples, track_scores
from transduce.model.seq2seq import Seq2Seq
from transduce.predict import Predictor
from transduce.readings import LengthCeilings, Member

Better = Literal["higher", "lower"]
SAMPLES = 20  # guesses per track where a metric asks for the best of several


class Judge(Protocol):
    """Scores outputs of one kind."""

    def better(self, metric: str) -> Better:
        """Which direction of a metric is better. Raises ConfigError for an unknown one."""
        ...

    def outputs(self, model: Seq2Seq, records: Sequence[Record]) -> tuple[dict[str, float], list[str]]:
        """Figures by name and one line of output per record."""
        ...


def make_judge(config: RunConfig, data: PreparedData, names: Sequence[str]) -> Judge:
    """The judge for a run's targets."""
    if data.target_codec.kind in TEXT_KINDS:
        return TextJudge(config, data, names)
    return TrackJudge(config, data, names)


class TextJudge:
    """Scores generated text."""

    def __init__(self, config: RunConfig, data: PreparedData, names: Sequence[str]) -> None:
        self.names = list(names)
        self.data = data
        self.ceilings = LengthCeilings(config.model.max_source_length, config.model.max_target_length)
        self.search = _validation_search(config.search, config.train.validation.beam)

    def better(self, metric: str) -> Better:
        """See `Judge`."""
        return find_metric(metric).better

    def outputs(self, model: Seq2Seq, records: Sequence[Record]) -> tuple[dict[str, float], list[str]]:
        """See `Judge`."""
        target_codec = as_text_codec(self.data.target_codec, "target")
        predictor = Predictor([model], self.data.source_codec, target_codec, search=self.search, ceilings=self.ceilings)
        texts = [prediction.text for prediction in predictor.predict([record.source for record in records])]
        if not self.names:
            return {}, texts
        scores = compute_metrics(self.names, texts, [[shown(target) for target in record.targets] for record in records])
        return {name: score.value for name, score in scores.items()}, texts


class TrackJudge:
    """Scores predicted tracks, in the user's units."""

    def __init__(self, config: RunConfig, data: PreparedData, names: Sequence[str]) -> None:
        self.names = list(names)
        self.data = data
        self.ceilings = LengthCeilings(config.model.max_source_length, config.model.max_target_length)
        samples = _num_samples(config) if set(SAMPLED) & set(names) else 0
        self.settings = config.rollout.model_copy(update={"num_samples": samples})
        self.config = config.data

    def better(self, metric: str) -> Better:
        """See `Judge`."""
        return better_track_metric(metric)

    def outputs(self, model: Seq2Seq, records: Sequence[Record]) -> tuple[dict[str, float], list[str]]:
        """See `Judge`."""
        member = Member(model, self.data.source_codec)
        target_codec = as_frames_codec(self.data.target_codec, "target")
        forecaster = Forecaster(member, target_codec, settings=self.settings, ceilings=self.ceilings, data=self.config)
        forecasts = forecaster.predict([record.source for record in records])
        return forecast_scores(self.names, forecasts, records), [shown(Track(forecast.values)) for forecast in forecasts]


def forecast_scores(names: Sequence[str], forecasts: Sequence[Forecast], records: Sequence[Record]) -> dict[str, float]:
    """Scores of forecasts against the (first) targets of their records."""
    truths = [cast(Track, record.targets[0]).values for record in records]
    samples = None if any(not forecast.samples for forecast in forecasts) else [padded_samples(forecast.samples) for forecast in forecasts]
    return track_scores(names, [forecast.values for forecast in forecasts], truths, samples=samples)


def _num_samples(config: RunConfig) -> int:
    """Guesses of each track; of modes no more than there are."""
    wanted = max(config.rollout.num_samples, SAMPLES)
    match config.model.head.kind:
        case "regression":
            return 0
        case "mixture":
            return wanted
        case "modes":
            return min(wanted, config.model.head.modes)


def _validation_search(search: SearchConfig, beam: int) -> SearchConfig:
    """The run's search, narrowed: no sampling, one output."""
    return SearchConfig(**{**search.model_dump(), "beam_size": beam, "num_best": 1, "sampling": None})
