"""What no single field can see: combinations of settings that cannot work, refused before training with the way out.

In: a whole `RunConfig`. Out: nothing, or one ConfigError that names every contradiction found. What needs the built
model (the sizes of an encoder's summary, say) is found by the one-batch trial before the first step instead.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from transduce.data.codec import TEXT_KINDS, VALUE_KINDS
from transduce.errors import ConfigError
from transduce.metrics.tracks import TRACK_METRICS

if TYPE_CHECKING:
    from transduce.config import RunConfig

# The front-ends that each kind of source can have.
FRONTENDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*TEXT_KINDS, "stored"), ("tokens",)),
    "frames": ("steps",),
    "audio": ("sound",),
    "image": ("cnn", "patches"),
    "none": ("none",),
}
# Between these, neither a factor of noam's own curve nor a peak learning rate makes sense.
SMALLEST_NOAM_FACTOR = 0.05
LARGEST_PEAK = 0.2


def check_run(config: "RunConfig") -> None:
    """Raises ConfigError that lists all contradictions of a configuration, one per line."""
    found = [
        *_ends(config),
        *_shortlist(config),
        *_language_model(config),
        *_model(config),
        *_lengths(config),
        *_training(config),
        *_ctc(config),
    ]
    if found:
        raise ConfigError("\n".join(found))


def _ends(config: "RunConfig") -> Iterator[str]:
    """Each kind of source has its front-end, each kind of target its head and its metrics."""
    data, model = config.data, config.model
    source, target = VALUE_KINDS[data.source_codec.kind], VALUE_KINDS[data.target_codec.kind]
    kind, fitting = data.source_codec.kind, FRONTENDS[data.source_codec.kind]
    if model.frontend.kind not in fitting:
        yield f"model.frontend.kind = {model.frontend.kind} does not fit: the source is {kind}, use {' or '.join(fitting)}"
    if target == "media":
        yield f"data.target_codec.kind = {data.target_codec.kind} is not possible: recordings and pictures can only be sources"
    if data.source_codec.kind == "image" and (model.frontend.kind == "cnn" or model.frontend.kind == "patches"):
        problem = model.frontend.patch_problem(data.source_codec.patch)
        if problem is not None:
            yield f"data.source_codec.patch = {data.source_codec.patch} does not fit model.frontend: {problem}"
    if model.reverse_source and source != "text":
        yield f"model.reverse_source is for sources of text; this one is {kind}"
    if any(corpus.resolved_format == "tracks" for corpus in (*data.train, data.valid)) and data.windows is None:
        yield "a corpus is a table of tracks: data.windows must tell its columns and how it is cut"
    if source != "frames" and data.target_codec.kind == "frames" and data.target_codec.relative != "absolute":
        yield "data.target_codec.relative must be absolute: only a source of numbers has steps to continue"
    wanted = [name for name in (*config.train.validation.metrics, config.train.metric) if name != "loss"]
    wrong = [name for name in dict.fromkeys(wanted) if (name in TRACK_METRICS) != (target == "frames")]
    if wrong:
        what = "numbers" if target == "frames" else "text"
        yield f"{', '.join(wrong)} is not measured of a target of {what}: set train.validation.metrics and train.metric"
    if target == "frames":
        yield from _numbers(config)


def _shortlist(config: "RunConfig") -> Iterator[str]:
    """It is learned from which token stands beside which."""
    kinds = VALUE_KINDS[config.data.source_codec.kind], VALUE_KINDS[config.data.target_codec.kind]
    if config.search.shortlist and kinds != ("text", "text"):
        yield f"search.shortlist needs texts at both ends; here it is {kinds[0]} to {kinds[1]}: set it to false"


def _language_model(config: "RunConfig") -> Iterator[str]:
    """What only a model with a source has, asked of a language model."""
    if config.data.source_codec.kind != "none":
        return
    model, train, decoder = config.model, config.train, config.model.decoder
    because = "does not go with data.source_codec.kind = none, a language model:"
    if VALUE_KINDS[config.data.target_codec.kind] != "text":
        yield f"data.target_codec.kind = {config.data.target_codec.kind} {because} its target is text"
    if model.encoder.kind != "none":
        yield f"model.encoder.kind = {model.encoder.kind} {because} there is nothing to encode, set it to none"
    if decoder.kind == "lstm" or decoder.kind == "gru":
        if decoder.attention != "none" or decoder.feed_summary:
            yield f"model.decoder {because} there is nothing to look at, set attention = none and feed_summary = false"
        if decoder.bridge != "zero":
            yield f"model.decoder.bridge = {decoder.bridge} {because} nothing tells the first state, set it to zero"
    if model.ctc or train.loss.doubly_stochastic:
        yield f"model.ctc or train.loss.doubly_stochastic {because} it looks at the source"
    if train.validation.metrics or train.metric != "loss":
        yield f"train.validation.metrics {because} it is judged by its loss, set metrics = [] and train.metric = loss"


def _numbers(config: "RunConfig") -> Iterator[str]:
    """What only text has, asked of numbers."""
    model, rollout = config.model, config.rollout
    for name, weight in (("r_drop", config.train.loss.r_drop), ("doubly_stochastic", config.train.loss.doubly_stochastic)):
        if weight:
            yield f"train.loss.{name} needs a target of text"
    if rollout.num_samples and model.head.kind == "regression":
        yield f"rollout.num_samples = {rollout.num_samples} needs model.head.kind = mixture or modes: a regression has no samples"
    if config.data.valid.noise:
        yield f"data.valid.noise = {config.data.valid.noise:g}: noise is for training; a model is judged by what was measured"
    if model.head.kind == "modes":
        yield from _modes(config)
    if rollout.steps is None and not model.head.stop and config.data.windows is None:
        yield "rollout.steps = null predicts until the model says stop: set model.head.stop = true, or rollout.steps"
    if rollout.steps is not None and rollout.steps > model.max_target_length:
        yield f"rollout.steps = {rollout.steps} is above model.max_target_length = {model.max_target_length}"


def _modes(config: "RunConfig") -> Iterator[str]:
    head, rollout = config.model.head, config.rollout
    if head.feedback == "previous":
        yield "model.head.kind = modes predicts whole tracks at once: set model.head.feedback = none"
    if rollout.num_samples > head.modes:
        yield f"rollout.num_samples = {rollout.num_samples} is above model.head.modes = {head.modes}"


def _model(config: "RunConfig") -> Iterator[str]:
    model, decoder = config.model, config.model.decoder
    if model.tie == "all" and not config.data.joint_vocabulary:
        yield "model.tie = all needs data.joint_vocabulary = true, one vocabulary for both ends (or choose model.tie = output)"
    if (decoder.kind == "lstm" or decoder.kind == "gru") and decoder.attention == "none" and decoder.attend is not None:
        yield f"model.decoder.attend = {decoder.attend} needs an attention, but model.decoder.attention = none"
    if (decoder.kind == "lstm" or decoder.kind == "gru") and decoder.attention == "none" and config.train.loss.doubly_stochastic:
        yield "train.loss.doubly_stochastic needs a decoder with attention, but model.decoder.attention = none"


def _ctc(config: "RunConfig") -> Iterator[str]:
    """A CTC layer, its loss and its search belong together."""
    model, trained, searched = config.model, config.train.loss.ctc_weight, config.search.ctc_weight
    if trained and not model.ctc:
        yield f"train.loss.ctc_weight = {trained:g} needs model.ctc = true"
    if model.ctc and not trained:
        yield "model.ctc = true has nothing to learn from: set train.loss.ctc_weight, 0.3 or so"
    if searched and not model.ctc:
        yield f"search.ctc_weight = {searched:g} needs model.ctc = true and a train.loss.ctc_weight"
    if model.ctc and VALUE_KINDS[config.data.target_codec.kind] != "text":
        yield f"model.ctc needs a target of text, not {config.data.target_codec.kind}"
    if model.ctc and model.reverse_source:
        yield "model.ctc reads source and target in the same order: set model.reverse_source = false"


def _lengths(config: "RunConfig") -> Iterator[str]:
    model = config.model
    ends = (
        ("source", "encoder", model.encoder, config.data.max_source_tokens, model.max_source_length),
        ("target", "decoder", model.decoder, config.data.max_target_tokens, model.max_target_length),
    )
    for end, part, stack, trained, longest in ends:
        if trained > longest:
            yield f"data.max_{end}_tokens = {trained} is above model.max_{end}_length = {longest}; raise the latter or lower the former"
        if (stack.kind == "transformer" or stack.kind == "conformer") and stack.positions == "learned" and stack.max_positions < longest:
            yield (
                f"model.{part}.max_positions = {stack.max_positions} is below model.max_{end}_length = {longest}: "
                "learned positions end there; make them equal, or choose other positions"
            )
    for name, length in (("max_length", config.search.max_length), ("min_length", config.search.min_length)):
        if length is not None and length >= model.max_target_length and name == "min_length":
            yield f"search.{name} = {length} is not below model.max_target_length = {model.max_target_length}"
        elif length is not None and length > model.max_target_length:
            yield f"search.{name} = {length} is above model.max_target_length = {model.max_target_length}"


def _training(config: "RunConfig") -> Iterator[str]:
    train = config.train
    if not (train.max_minutes or train.max_steps or train.max_epochs or train.early_stop_patience):
        yield (
            "train has no end: set train.max_minutes, train.max_steps, train.max_epochs or train.early_stop_patience "
            "(the first that is reached ends the run)"
        )
    if train.metric != "loss" and train.metric not in train.validation.metrics:
        wanted = ", ".join((*train.validation.metrics, train.metric))
        yield f"train.metric = {train.metric} is not measured: set train.validation.metrics = [{wanted}] (or train.metric = loss)"
    factor = train.optimizer.learning_rate
    if train.schedule.kind == "noam" and factor < SMALLEST_NOAM_FACTOR:
        yield f"train.optimizer.learning_rate = {factor:g} multiplies the noam schedule's own curve: use 1 or so, or another schedule.kind"
    if train.schedule.kind != "noam" and factor > LARGEST_PEAK:
        yield f"train.optimizer.learning_rate = {factor:g} is the peak of schedule {train.schedule.kind}: use 1e-3 or so (1 is for noam)"
