"""From the user's files to batches: the data settings, the loader, and `prepare`, which does all of it.

In: `DataConfig` and a seed. Out: codecs, a training and a validation loader, validation strings, and a report.
The decision a reader would question: batches of texts and numbers are made in the training thread. Making one is a few copies out
of mapped memory, a hundredth of a training step on a processor. Only media files, which must be decoded, are read ahead in threads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import sentencepiece
import torch
from pydantic import Field, model_validator

from transduce.data.ahead import ahead
from transduce.data.batch import Batch
from transduce.data.cache import Cache, default_cache, key_of
from transduce.data.codec import VALUE_KINDS, Codec, CodecConfig, fit_codec, load_codec
from transduce.data.examples import CorpusConfig, Errors, Reading, Record, read_pairs
from transduce.data.plan import BatchPlan, Rows, corpus_counts, epoch_rows, example_keys, generator, numbers, plan_batches
from transduce.data.report import CorpusReport, DataReport, Lossless, merge_lossless
from transduce.data.store import PairStore, StoreOptions, build_store, corpus_key
from transduce.data.text import SentencePieceConfig
from transduce.data.values import BadValueError, Value
from transduce.data.windows import WindowsConfig
from transduce.errors import ConfigError, DataError
from transduce.settings import Settings


class DataConfig(Settings):
    """What is read, how it becomes tokens, and how tokens become batches."""

    train: list[CorpusConfig] = Field(min_length=1)
    """One corpus or a list of them, mixed by `weight` or `temperature`."""
    valid: CorpusConfig
    """The corpus that training is judged by."""
    source_codec: CodecConfig = SentencePieceConfig()
    """What sources are; its `kind` is sentencepiece, characters, bytes or words for texts, frames for numbers, audio for recordings,
    image for pictures, none for a language model, which has targets alone; or stored, that of another model."""
    target_codec: CodecConfig = SentencePieceConfig()
    """What targets are; its `kind` is sentencepiece, characters, bytes or words for texts, frames for numbers; or stored, that of
    another model, which a language model for it must share."""
    joint_vocabulary: bool = False
    """One codec for both ends, learned from both. It is enough to describe it as one of source_codec and target_codec."""
    errors: Errors = "strict"
    """`strict` stops at the first bad record with file and line; `tolerant` leaves bad records out and counts them."""
    max_source_tokens: int = Field(default=256, ge=2)
    """Longest source: tokens with the end of sequence, steps of a track, frames of sound. Longer pairs are counted, reported and
    left out of training."""
    max_target_tokens: int = Field(default=256, ge=2)
    """Longest target: tokens with the end of sequence, or steps of a track. Longer pairs are counted, reported and left out of training."""
    temperature: float = Field(default=1.0, gt=0)
    """Mixing of corpora without weights: shares are proportional to size ** (1 / temperature)."""
    max_tokens_per_batch: int = Field(default=4096, ge=1)
    """Budget of a batch, padding included: max(source width, target width) * rows. Several targets of one source count as one, as wide as
    the longest of them times their number."""
    windows: WindowsConfig | None = None
    """How tables of tracks (corpora of format tracks) are read and cut into what is observed and what is predicted."""
    workers: int = Field(default=1, ge=0)
    """Threads that decode media files and put tracks together ahead of training; 0 = none. Texts need none."""
    cache_dir: Path | None = None
    """Where encoded data and learned codecs are kept between runs; None = `transduce` in the XDG cache home."""

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, tree: Any) -> Any:
        """One corpus is a list of one; a joint codec described once stands for both ends."""
        if not isinstance(tree, dict):
            return tree
        tree = dict(tree)
        if "train" in tree and not isinstance(tree["train"], list | tuple):
            tree["train"] = [tree["train"]]
        if tree.get("joint_vocabulary") is True and ("source_codec" in tree) != ("target_codec" in tree):
            tree["source_codec"] = tree["target_codec"] = tree.get("source_codec", tree.get("target_codec"))
        return tree

    @model_validator(mode="after")
    def _have_sources(self) -> Self:
        for corpus in (*self.train, self.valid):
            if self.reading.source == "nothing" and corpus.source is not None:
                raise ConfigError(f"{corpus.name}: leave out `source`, because data.source_codec.kind = none: a language model has none")
            if self.reading.source != "nothing" and corpus.path is None and corpus.source is None:
                raise ConfigError(
                    f"{corpus.name}: a corpus needs `source` and `target` (two aligned files), or `path` (one TSV or JSONL file); "
                    "only a language model (data.source_codec.kind = none) has targets alone"
                )
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        weighted = [corpus.weight is not None for corpus in self.train]
        if any(weighted) and not all(weighted):
            name = self.train[weighted.index(False)].name
            raise ConfigError(f"data.train: {name} has no `weight` but others have; give one to all, or to none (then `temperature` mixes)")
        if any(weighted) and self.temperature != 1:
            raise ConfigError("data.temperature: not allowed together with weights in data.train; use one of them")
        if self.joint_vocabulary and self.source_codec != self.target_codec:
            raise ConfigError("data.joint_vocabulary: source_codec and target_codec must be the same, or only one of them given")
        longest = max(0 if self.reading.source == "nothing" else self.max_source_tokens, self.max_target_tokens)
        if longest > self.max_tokens_per_batch:
            raise ConfigError(
                f"data.max_tokens_per_batch: {self.max_tokens_per_batch} has no room for one pair of {longest} tokens; raise it, or lower "
                "max_source_tokens and max_target_tokens"
            )
        return self

    @property
    def reading(self) -> Reading:
        """How the fields of all corpora are read."""
        return Reading(VALUE_KINDS[self.source_codec.kind], VALUE_KINDS[self.target_codec.kind], self.windows)

    @property
    def weights(self) -> list[float] | None:
        """Explicit corpus weights, if there are any."""
        weights = [corpus.weight for corpus in self.train if corpus.weight is not None]
        return weights or None


class Loader:
    """Batches of similar length from one or several stores.

    `Batch.ids` numbers examples over all stores in a row. With `seed` None nothing is shuffled, mixed or changed at random (validation).
    """

    def __init__(self, stores: Sequence[PairStore], *, config: DataConfig, codecs: tuple[Codec, Codec], seed: int | None) -> None:
        self.stores = tuple(stores)
        self.sizes = [len(store) for store in stores]
        self._firsts = np.cumsum([0, *self.sizes])
        self._codecs = codecs
        self._budget = config.max_tokens_per_batch
        self._workers = config.workers if {"media", "frames"} & {config.reading.source, config.reading.target} else 0
        self._seed = seed
        mixed = seed is not None and len(stores) > 1
        self.counts = corpus_counts(self.sizes, weights=config.weights, temperature=config.temperature) if mixed else self.sizes
        self.source_widths = np.concatenate([store.source.widths for store in stores])
        self.target_widths = np.concatenate([store.target_widths for store in stores])
        self._planned: tuple[int, BatchPlan] | None = None

    def __len__(self) -> int:
        """Examples in all stores, and in an epoch."""
        return sum(self.sizes)

    def plan(self, epoch: int) -> BatchPlan:
        """The batches of an epoch; the last plan is kept."""
        if self._seed is None:
            epoch = 0
        if self._planned is None or self._planned[0] != epoch:
            self._planned = None  # so that the old plan's memory is free for the new one
            self._planned = (epoch, self._make_plan(epoch))
        return self._planned[1]

    def _make_plan(self, epoch: int) -> BatchPlan:
        if self._seed is None:
            rows, shuffle = numbers(len(self)), None
        else:
            rows = epoch_rows(self.sizes, self.counts, seed=self._seed, epoch=epoch)
            shuffle = generator(self._seed, 3, epoch)
        return plan_batches(rows, self.source_widths, self.target_widths, budget=self._budget, shuffle=shuffle)

    def num_batches(self, epoch: int) -> int:
        """Batches of an epoch; they differ a little from epoch to epoch."""
        return len(self.plan(epoch))

    def padding_share(self, epoch: int) -> float:
        """Padding over all cells of an epoch's source and target rectangles, 0 to 1."""
        plan = self.plan(epoch)
        if all(store.firsts is None for store in self.stores):
            return plan.padding_share
        inside = np.concatenate([store.target_pads for store in self.stores])[plan.rows]
        return plan.padding_share + int(inside.sum()) / max(plan.cells, 1)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `start` on, which costs the same wherever it is."""
        plan = self.plan(epoch)
        return ahead(lambda index: self.gather(plan.batch(index), epoch), range(start, len(plan)), workers=self._workers)

    def gather(self, rows: Rows, epoch: int = 0) -> Batch:
        """The examples numbered `rows` (B,) as a batch of that epoch. Raises DataError for a media file that has become unreadable."""
        owners = np.searchsorted(self._firsts, rows, side="right") - 1
        found = [iter(store.examples(rows[owners == owner] - self._firsts[owner])) for owner, store in enumerate(self.stores)]
        examples = [next(found[owner]) for owner in owners.tolist()]
        counts = [len(targets) for _, targets in examples]
        sources = [source for source, _ in examples]
        targets = [target for _, several in examples for target in several]
        keys = None if self._seed is None else example_keys(rows, seed=self._seed, epoch=epoch)
        try:
            source = self._codecs[0].collate(sources, keys)
            target = self._codecs[1].collate(targets, None if keys is None else keys.repeat(counts))
        except BadValueError as problem:
            raise DataError(f"{problem} (data.errors: tolerant reads every file before training and leaves such examples out)") from None
        several = None if max(counts, default=1) == 1 else torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts))
        return Batch(torch.from_numpy(rows.astype(np.int64)), source, target, several)


@dataclass(frozen=True)
class PreparedData:
    """Everything that training needs of the data."""

    source_codec: Codec
    target_codec: Codec
    train: Loader
    valid: Loader
    """Fixed order; without the pairs that are too long for `max_source_tokens` and `max_target_tokens`."""
    valid_records: list[Record]
    """All validation examples as they were read, in file order."""
    report: DataReport
    lossless: tuple[Lossless, Lossless]
    """Source and target: how many of the checked training values do not survive the codec."""


def prepare(
    config: DataConfig, seed: int, *, codecs: tuple[Codec, Codec] | None = None, say: Callable[[str], None] | None = None
) -> PreparedData:
    """Read, check, learn codecs (unless given, as on resume), encode and plan; from the cache where nothing has changed.

    `say` gets the report line by line. Raises DataError for bad records and missing files, ConfigError for settings
    that do not fit the data, StorageError if the cache cannot be written.
    """
    cache = Cache(config.cache_dir or default_cache())
    reading = config.reading
    for corpus in (*config.train, config.valid):
        corpus_key(corpus, cache, reading)  # opens every file before any work is done
    pair = codecs or _fitted_codecs(config, seed, cache)
    options = StoreOptions(config.errors, reading, config.max_source_tokens, config.max_target_tokens)
    report = DataReport()
    stores = [build_store(corpus, codecs=pair, options=options, cache=cache, report=report) for corpus in config.train]
    _check_filled(stores, report.corpora, "training")
    kept = replace(options, validation=True)
    valid_store = build_store(config.valid, codecs=pair, options=kept, cache=cache, report=report)
    valid_records = read_pairs(config.valid, errors=config.errors, report=DataReport(), keep_empty=True, reading=reading)
    train = Loader(stores, config=config, codecs=pair, seed=seed)
    report.padding_share = train.padding_share(0)
    prepared = PreparedData(
        source_codec=pair[0],
        target_codec=pair[1],
        train=train,
        valid=Loader([valid_store], config=config, codecs=pair, seed=None),
        valid_records=list(valid_records),
        report=report,
        lossless=_lossless(report.corpora[: len(stores)]),
    )
    _check_filled([valid_store], report.corpora[-1:], "validation")
    for line in _codec_lines(config, pair) + report.lines():
        (say or _silent)(line)
    return prepared


def _silent(_line: str) -> None:
    """Where nobody listens; the report is returned all the same."""


def _lossless(corpora: Sequence[CorpusReport]) -> tuple[Lossless, Lossless]:
    return merge_lossless([corpus.source_lossless for corpus in corpora]), merge_lossless([corpus.target_lossless for corpus in corpora])


def _check_filled(stores: Sequence[PairStore], corpora: Sequence[CorpusReport], purpose: str) -> None:
    if not sum(map(len, stores)):
        raise DataError(f"no pair is left for {purpose}:\n" + "\n".join(line for corpus in corpora for line in corpus.lines()))


def _codec_lines(config: DataConfig, codecs: tuple[Codec, Codec]) -> list[str]:
    lines = []
    for end, settings, codec in zip(("source", "target"), (config.source_codec, config.target_codec), codecs, strict=True):
        asked = settings.vocabulary_size if settings.kind == "sentencepiece" and settings.model_file is None else None
        fewer = "" if asked is None or f" {asked} " in codec.describe() else f" ({asked} asked for: the data has no more)"
        lines.append(f"{end} codec: {codec.describe()}{fewer}{', the same for both ends' if config.joint_vocabulary else ''}")
    return lines[:1] if config.joint_vocabulary else lines


def _fitted_codecs(config: DataConfig, seed: int, cache: Cache) -> tuple[Codec, Codec]:
    if config.joint_vocabulary:
        codec = _fitted(config, config.source_codec, ends=(0, 1), seed=seed, cache=cache)
        return codec, codec
    source = _fitted(config, config.source_codec, ends=(0,), seed=seed, cache=cache)
    return source, _fitted(config, config.target_codec, ends=(1,), seed=seed, cache=cache)


def _fitted(config: DataConfig, settings: CodecConfig, *, ends: tuple[int, ...], seed: int, cache: Cache) -> Codec:
    """The codec learned from the given ends of all training corpora, from the cache if they have not changed."""
    brought = settings.kind == "sentencepiece" and settings.model_file is not None
    if brought or settings.kind in ("bytes", "none", "stored"):
        return fit_codec(settings, (), seed)
    tree = {
        "corpora": [corpus_key(corpus, cache, config.reading) for corpus in config.train],
        "errors": config.errors,
        "codec": settings.model_dump(mode="json"),
        "ends": ends,
        "seed": seed,
        "trainer": sentencepiece.__version__,
    }
    values = (value for end in ends for value in _all_values(config, end))
    return load_codec(cache.entry(f"codecs/{key_of(tree)}", lambda directory: fit_codec(settings, values, seed).save(directory)))


def _all_values(config: DataConfig, end: int) -> Iterator[Value]:
    """Every training source (end 0) or target (end 1); what is wrong with a record is counted when the corpora are encoded."""
    for corpus in config.train:
        for record in read_pairs(corpus, errors=config.errors, report=DataReport(), reading=config.reading):
            yield from record.targets if end else (record.source,)
