"""Prediction: raw source texts in, typed predictions out, in the order given, one for each.

Validation, the command line and every other user of a trained model come through here. The decision to question: sources are
sorted by length and searched in batches under a token budget, which changes the speed and never an answer; what cannot
be searched (an empty line, a source that is longer than the model allows) is answered with an empty text and a flag.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from transduce.data.batch import Batch, pad_tokens
from transduce.data.codec import Codec, as_text_codec
from transduce.data.loader import DataConfig
from transduce.data.tokens import TextCodec
from transduce.data.values import Value
from transduce.decode.batches import plan_batches
from transduce.decode.forced import forced_log_probabilities
from transduce.decode.fusion import LanguageModel, expect_language_model
from transduce.decode.hypotheses import Hypothesis
from transduce.decode.search import SearchConfig
from transduce.decode.shortlist import Shortlist
from transduce.engines import Engine, EngineChoice, EngineName
from transduce.errors import ConfigError, DataError
from transduce.forked import Copies, can_fork
from transduce.model.search_transformer import model_with_products, quick_beam
from transduce.model.seq2seq import Seq2Seq
from transduce.predictions import Alternative, ForcedScore, Prediction
from transduce.readings import LengthCeilings, Member, Readings, evaluation, read_values
from transduce.searcher import Question, Searcher, question
from transduce.train.precision import LARGE_MODEL, ProductKind, choose_products

__all__ = ["Alternative", "ForcedScore", "Prediction", "Predictor"]

TARGET_TOO_LONG = "target_too_long"
STREAM_LINES = 1024  # lines that `predict_stream` holds at once: enough for full batches of like length
FEWEST_TO_SHARE = 16  # sources for each worker process: fewer are searched sooner than the processes start
FEWEST_LONG, FEWEST_TOKENS = 2, 512  # the same of long ones, and their tokens in all
FORCED_TOKENS = 4096  # padded target tokens that forced scoring feeds at once


class Predictor:
    """One model, or several that share the target codec, ready to predict. Models are put into evaluation mode while in use.

    language_model: takes part in search where `search.language_weight` is not 0 (shallow fusion); None = there is none.
    workers: processes that search with torch at once where there are sources enough, one thread each; 1 = this one alone, with its threads.
    choice: what searches, torch unless `load` found an export. left_to_torch: sources so far that another engine had to leave to torch.
    quick_beam: the beam from which torch in several processes is faster than an engine that was not asked for by name; None = never.
    """

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        source_codec: Codec,
        target_codec: TextCodec,
        *,
        search: SearchConfig | None = None,
        ceilings: LengthCeilings | None = None,
        data: DataConfig | None = None,
    ) -> None:
        self.members = tuple(Member(model, source_codec) for model in models)
        self.language_model: LanguageModel | None = None
        self.shortlist: Shortlist | None = None
        """Which target tokens torch considers with rounded weights, where `search.shortlist` is on and nothing else is asked."""
        self.target_codec = target_codec
        self.search = search or SearchConfig()
        self.ceilings = ceilings or LengthCeilings()
        self.data = data
        self.precision = "fp32"
        """What products are computed in, and why; for people."""
        self.workers = 1
        self._copies: Copies[Question, list[list[Hypothesis]]] | None = None
        self._known: object = None  # the models that the copies have
        self.choice = EngineChoice()
        self.left_to_torch = 0
        self.quick_beam: int | None = None

    @property
    def source_codec(self) -> Codec:
        """How the (first) model reads sources."""
        return self.members[0].source_codec

    @classmethod
    def load(
        cls,
        path: Path | str | Sequence[Path | str],
        *,
        language_model: Path | str | None = None,
        threads: int | None = None,
        precision: ProductKind = "fp32",
        engine: EngineName = "auto",
        probabilities: bool = True,
    ) -> "Predictor":
        """From a run folder or model directory, or several of them for an ensemble (mean of probabilities).

        language_model: one that was trained with the same target codec, for search. threads: processor threads for arithmetic; None
        leaves torch's setting. precision: fp32, int8 or bf16 (weights and inputs of products are rounded: faster, nearly the same answers)
        or auto, a rounded one where the processor is fast at it and the model is large. engine: auto = CTranslate2 where the model was
        exported to it and passed the check, for all that it searches exactly, else torch. probabilities: False leaves
        `token_probabilities` empty where an engine needs a second pass for them.
        Raises CheckpointError, ConfigError, ExportError.
        """
        # here: training must not be imported to predict with a given model
        from transduce.export.choice import EngineRequest, choose_engine
        from transduce.train.checkpoint import load_model, resolve_model

        paths = [path] if isinstance(path, str | Path) else list(path)
        if not paths:
            raise ConfigError("no model was named: give a run folder or a model directory")
        if threads is not None:
            torch.set_num_threads(threads)
        directories = [resolve_model(Path(one)) for one in paths]
        loaded = [load_model(directory) for directory in directories]
        first = loaded[0]
        for one, other in zip(paths[1:], loaded[1:], strict=True):
            if other.target_codec.digest != first.target_codec.digest:
                raise ConfigError(f"{one} writes with another target codec than {paths[0]}; an ensemble must share it")
        ceilings = LengthCeilings(
            min(one.config.model.max_source_length for one in loaded), min(one.config.model.max_target_length for one in loaded)
        )
        target_codec = as_text_codec(first.target_codec, "target")
        config = first.config
        predictor = cls([first.model], first.source_codec, target_codec, search=config.search, ceilings=ceilings, data=config.data)
        models = [one.model for one in loaded]
        weights = sum(parameter.numel() for model in models for parameter in model.parameters())
        kind, reason = choose_products(precision, device=next(models[0].parameters()).device, num_weights=weights)
        models = [model_with_products(model, kind) for model in models]
        predictor.quick_beam = quick_beam(models, kind) if weights >= LARGE_MODEL else None
        if kind != "fp32":
            predictor.shortlist = first.shortlist if len(loaded) == 1 else None
        predictor.members = tuple(Member(model, one.source_codec) for model, one in zip(models, loaded, strict=True))
        predictor.precision = f"{kind} ({reason})"
        request = EngineRequest(engine, precision, torch.get_num_threads(), probabilities)
        predictor.choice = choose_engine(directories, loaded, request)
        if language_model is not None:
            language = load_model(resolve_model(Path(language_model)))
            expect_language_model(language_model, (language.source_codec, language.target_codec), writes=target_codec, beside=paths[0])
            predictor.language_model = LanguageModel(model_with_products(language.model, kind), language.config.model.max_target_length)
        return predictor

    def to(self, device: str) -> "Predictor":
        """The same models moved to another device, as torch names it (cpu, cuda). Int8 weights stay on the processor."""
        other = copy(self)
        other.members = tuple(Member(member.model.to(device), member.source_codec) for member in self.members)
        if self.language_model is not None:
            other.language_model = LanguageModel(self.language_model.model.to(device), self.language_model.longest)
        return other

    def with_engine(self, choice: EngineChoice) -> "Predictor":
        """The same models with another choice of engine."""
        other = copy(self)
        other.choice, other.left_to_torch = choice, 0
        return other

    def predict(
        self,
        sources: Sequence[Value],
        *,
        search: SearchConfig | None = None,
        with_attention: bool = False,
        prefixes: Sequence[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        first_line: int = 1,
    ) -> list[Prediction]:
        """One prediction per source, in the order given.

        search: settings for this call instead of the predictor's own. prefixes: text that each output must begin with ("" = none).
        on_progress: called with (done, all) after each batch. first_line: number of the first source, for messages.
        Raises DataError for a source that is too long under `too_long: refuse`
        and for a prefix that the target vocabulary cannot write.
        """
        starts = self._encode_prefixes(prefixes, len(sources), first_line=first_line)
        results: list[Prediction] = []

        def report(done: int) -> None:
            if on_progress is not None:
                on_progress(len(results) + done, len(sources))

        for encoded in self.read(sources, search=search, first_line=first_line):
            here = None if starts is None else starts[len(results) :]
            results += self.answer(encoded, search=search, starts=here, with_attention=with_attention, report=report)
        return results

    def predict_stream(
        self, lines: Iterable[Value], *, search: SearchConfig | None = None, with_attention: bool = False, chunk_lines: int = STREAM_LINES
    ) -> Iterator[Prediction]:
        """Predictions in order while lines are still coming; holds `chunk_lines` of them at a time, whatever the size of the input. The
        last ones are searched as those before them, however few they are."""
        iterator, first_line, many = iter(lines), 1, False
        while chunk := list(islice(iterator, chunk_lines)):
            for encoded in self.read(chunk, search=search, first_line=first_line):
                many = many or self._shared(len(encoded.searchable()))
                yield from self.answer(encoded, search=search, with_attention=with_attention, many=many)
            first_line += len(chunk)

    def score(self, sources: Sequence[Value], targets: Sequence[str]) -> list[ForcedScore]:
        """Log-probabilities of given targets, in the order given. Raises DataError when the numbers of texts differ."""
        if len(sources) != len(targets):
            raise DataError(f"{len(sources)} sources and {len(targets)} targets: one target per source is needed")
        rows = self.target_codec.encode_many(list(targets))
        results: list[ForcedScore] = []
        for encoded in self.read(sources):
            results += self._score(encoded, rows[len(results) : len(results) + len(encoded.values)])
        return results

    def read(self, sources: Sequence[Value], *, search: SearchConfig | None = None, first_line: int = 1) -> Iterator[Readings]:
        """The sources as the models read them, stretch by stretch; media files are decoded here. Errors as of `predict`."""
        refuse = (search or self.search).too_long == "refuse"
        return read_values(self.members, sources, longest=self.ceilings.source, refuse=refuse, first_line=first_line)

    def answer(
        self,
        encoded: Readings,
        *,
        search: SearchConfig | None = None,
        starts: Sequence[list[int]] | None = None,
        with_attention: bool = False,
        report: Callable[[int], None] | None = None,
        many: bool | None = None,
    ) -> list[Prediction]:
        """One prediction per source of a stretch. starts: ids that each output must begin with. report: called with how many are done.
        many: whether several processes search; None = where the stretch has sources enough."""
        config = search or self.search
        results = [self._empty(encoded, number) for number in range(len(encoded.values))]
        weighed = bool(self.language_weight(config))
        engine, _ = self.choice.pick(config, prefixes=any(starts or ()), attention=with_attention, language_model=weighed)
        many = self._shared(len(encoded.searchable())) if many is None else many
        if self.prefers_torch(config) and many:
            engine = None
        done = len(results) - len(encoded.searchable())
        with evaluation(self.members):
            for batch, found in self._found(encoded, engine, config=config, starts=starts, many=many):
                attention = self._attend(encoded, batch, found) if with_attention else [None] * len(batch)
                for number, hypotheses, weights in zip(batch, found, attention, strict=True):
                    entries = tuple(self._alternative(hypothesis) for hypothesis in hypotheses)
                    results[number] = self._prediction(encoded, number, entries, attention=weights)
                done += len(batch)
                if report is not None:
                    report(done)
        return results

    def _found(
        self, encoded: Readings, engine: Engine | None, *, config: SearchConfig, starts: Sequence[list[int]] | None, many: bool
    ) -> Iterator[tuple[list[int], list[list[Hypothesis]]]]:
        """Batches of source numbers with what was found for each, by an engine and, for what it leaves, by torch, in several processes
        where that is worth it."""
        numbers = encoded.searchable() if engine is None else []
        if engine is not None:
            for batch, answers in engine.search(encoded, config, ceiling=self.ceilings.target):
                answered = {number: [answer] for number, answer in zip(batch, answers, strict=True) if answer is not None}
                numbers += [number for number in batch if number not in answered]
                yield list(answered), list(answered.values())
            self.left_to_torch += len(numbers)
        if not numbers:
            return
        rows_each = config.beam_size if config.sampling is None else config.num_best
        lengths = [encoded.lengths[number] for number in numbers]
        shared = (many and engine is None) or self._shared(len(numbers), tokens=sum(lengths))
        plan = plan_batches(lengths, budget=config.batch_tokens, rows_each=rows_each, workers=self.workers if shared else 1)

        def ask(places: Sequence[int]) -> Question:
            return question(encoded, [numbers[place] for place in places], config=config, starts=starts)

        searcher = Searcher(self.members, self.language_model, self.shortlist, self.ceilings.target)
        if shared:
            outcomes = self._team(searcher, rehearsal=ask(plan[-1][-1:])).answers([ask(places) for places in plan])
        else:
            outcomes = searcher.answers(enumerate(map(ask, plan)))
        yield from (([numbers[place] for place in plan[number]], found) for number, found in outcomes)

    def prefers_torch(self, config: SearchConfig) -> bool:
        """Whether sources that are enough for several processes are left to torch, though there is an engine beside it."""
        return not self.choice.forced and self.quick_beam is not None and config.beam_size >= self.quick_beam and self.workers > 1

    def _shared(self, count: int, tokens: int = 0) -> bool:
        """Whether so many sources, with so many tokens in all, are searched by several processes."""
        enough = count >= FEWEST_TO_SHARE * self.workers or (count >= FEWEST_LONG * self.workers and tokens >= FEWEST_TOKENS * self.workers)
        return self.workers > 1 and enough and self._device().type == "cpu" and can_fork()

    def _team(self, searcher: Searcher, *, rehearsal: Question) -> Copies[Question, list[list[Hypothesis]]]:
        """Copies of this process that know these models, made where there are none yet that wait for questions."""
        state = searcher.state()
        if self._copies is None or self._known != state or len(self._copies) != self.workers or not self._copies.ready:
            self._copies = None  # before others are made
            self._copies, self._known = Copies(searcher.answers, self.workers, rehearsal=rehearsal.shortened()), state
        return self._copies

    def _score(self, encoded: Readings, rows: Sequence[np.ndarray]) -> list[ForcedScore]:
        flags = [
            own + ((TARGET_TOO_LONG,) if len(row) >= self.ceilings.target else ()) for own, row in zip(encoded.flags, rows, strict=True)
        ]
        results = [ForcedScore(float("nan"), tuple(self._pieces(row)), (), own) for row, own in zip(rows, flags, strict=True)]
        numbers = [number for number in encoded.searchable() if TARGET_TOO_LONG not in flags[number]]
        lengths = [max(encoded.lengths[number], len(rows[number]) + 1) for number in numbers]
        target = self.target_codec.vocabulary
        with evaluation(self.members):
            for places in plan_batches(lengths, budget=FORCED_TOKENS):
                batch = [numbers[place] for place in places]
                padded = pad_tokens([rows[number] for number in batch], eos_id=target.eos_id, pad_id=target.pad_id).to(self._device())
                models, read = [member.model for member in self.members], encoded.padded(batch, self._device())
                values = forced_log_probabilities(models, read, padded).cpu()
                for number, row, length in zip(batch, values, padded.lengths.tolist(), strict=True):
                    logs = tuple(row[:length].tolist())
                    results[number] = ForcedScore(sum(logs), results[number].tokens, logs, flags[number])
        return results

    def _encode_prefixes(self, prefixes: Sequence[str] | None, count: int, *, first_line: int) -> list[list[int]] | None:
        if prefixes is None:
            return None
        if len(prefixes) != count:
            raise DataError(f"{len(prefixes)} prefixes and {count} sources: one prefix per source is needed")
        unknown, ceiling = self.target_codec.vocabulary.unk_id, self.ceilings.target - 1
        rows = [row.tolist() for row in self.target_codec.encode_many(list(prefixes))]
        for line, row in enumerate(rows, start=first_line):
            if unknown in row:
                raise DataError("the forced prefix has characters that the target vocabulary does not know", "prefixes", line)
            if len(row) > ceiling:
                raise DataError(f"the forced prefix has {len(row)} tokens; the model writes at most {ceiling}", "prefixes", line)
        return rows

    def language_weight(self, config: SearchConfig) -> float:
        """The weight of the language model in a search, 0 where there is none."""
        return 0.0 if self.language_model is None else config.language_weight

    def _attend(self, encoded: Readings, batch: Sequence[int], found: list[list[Hypothesis]]) -> list[np.ndarray | None]:
        """Attention of the best outputs, read off the first model with the output as given target."""
        source, vocabulary = encoded.padded(batch, self._device())[0], self.target_codec.vocabulary
        rows = [np.asarray(hypotheses[0].tokens, dtype=np.int64) for hypotheses in found]
        target = pad_tokens(rows, eos_id=vocabulary.eos_id, pad_id=vocabulary.pad_id).to(self._device())
        with torch.inference_mode():
            model = self.members[0].model
            memory = model.encode(source)
            weights = model.attention(Batch(torch.arange(len(found), device=self._device()), source, target), memory)
        if weights is None:
            return [None] * len(found)
        sizes = zip(target.lengths.tolist(), memory.mask.sum(1).tolist(), strict=True)
        return [row[:length, :width].copy() for row, (length, width) in zip(weights.float().cpu().numpy(), sizes, strict=True)]

    def _empty(self, encoded: Readings, number: int) -> Prediction:
        return self._prediction(encoded, number, (Alternative("", 0.0, 0.0, (), (), False),), attention=None)

    def _prediction(self, encoded: Readings, number: int, entries: tuple[Alternative, ...], *, attention: np.ndarray | None) -> Prediction:
        best, row = entries[0], encoded.first(number)
        return Prediction(
            text=best.text,
            score=best.score,
            log_probability=best.log_probability,
            tokens=best.tokens,
            token_probabilities=best.token_probabilities,
            alternatives=entries,
            truncated=best.truncated,
            flags=encoded.flags[number],
            source_tokens=tuple(self.source_codec.labels(row.data)),
            source_length=row.width,
            num_unknown=self.source_codec.num_unknown(row.data),
            problem=encoded.problem(number),
            attention=attention,
        )

    def _alternative(self, hypothesis: Hypothesis) -> Alternative:
        count = len(hypothesis.tokens)
        return Alternative(
            text=self.target_codec.decode(hypothesis.tokens),
            score=hypothesis.score,
            log_probability=hypothesis.log_probability,
            tokens=tuple(self._pieces(hypothesis.tokens)),
            token_probabilities=tuple(np.exp(hypothesis.token_log_probabilities[:count]).tolist()),
            truncated=hypothesis.truncated,
        )

    def _pieces(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        return self.target_codec.pieces([int(token) for token in ids])

    def _device(self) -> torch.device:
        return next(self.members[0].model.parameters()).device
