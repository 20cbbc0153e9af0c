"""Invariant 10 for what is heard and seen: tones are written down by CTC and by attention, and the colours of a picture are named in order.

Sounds and pictures are made here; a few dozen small steps, then unseen ones are read greedily.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transduce.data.batch import Batch, Padded
from transduce.decode.ctc_only import ctc_search
from transduce.decode.search import SearchConfig
from transduce.model.conformer import ConformerConfig
from transduce.model.features import FeaturesConfig
from transduce.model.frontends import EndShape, Pixels, Sound, Vocabulary
from transduce.model.images import CnnConfig, PatchesConfig
from transduce.model.no_encoder import NoEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.sound import SoundConfig
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig
from transduce.train.loss import LossConfig
from transduce.train.objective import training_loss

Maker = Callable[[torch.Generator], Batch]
WORDS = Vocabulary(size=8, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
SYMBOLS = torch.arange(4, WORDS.size)
ROWS, RATE = 32, 8_000
HEARD = Sound(RATE, FeaturesConfig(kind="fbank", num_bins=16), (8.0,) * 16, (4.0,) * 16)
SEEN = Pixels(size=16, patch=8, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
TONES = torch.tensor([500.0, 900.0, 1500.0, 2500.0])  # Hz, one for each symbol
TONE, GAP = 960, 320  # samples: 0.12 s of tone, 0.04 s of nearly nothing
COLOURS = torch.tensor([[220, 40, 40], [40, 200, 60], [50, 70, 230], [230, 220, 60]], dtype=torch.uint8)
SELF = {"layers": 1, "width": 32, "heads": 4, "feed_forward": 64, "dropout": 0.0}
ADDITIVE = {"kind": "gru", "width": 48, "attention_size": 32, "dropout": 0.0}


def targets(symbols: Tensor, lengths: Tensor) -> Padded:
    """Rows of numbers of symbols -> their tokens, with end-of-sequence."""
    data = torch.full((len(symbols), symbols.shape[1] + 1), WORDS.pad_id)
    for row, length in enumerate(lengths.tolist()):
        data[row, :length] = SYMBOLS[symbols[row, :length]]
        data[row, length] = WORDS.eos_id
    return Padded(data, lengths + 1)


def heard(generator: torch.Generator) -> Batch:
    """One to three tones of random phase in noise, and which they were."""
    lengths = torch.randint(1, 4, (ROWS,), generator=generator)
    symbols = torch.randint(0, 4, (ROWS, 3), generator=generator)
    times = torch.arange(TONE) / RATE
    phases = torch.rand(ROWS, 3, 1, generator=generator)
    tones = torch.sin(2 * math.pi * (TONES[symbols][..., None] * times + phases))
    noise = 0.02 * torch.randn(ROWS, 3 * (TONE + GAP), generator=generator)
    sound = torch.cat([tones, torch.zeros(ROWS, 3, GAP)], dim=2).flatten(1) + noise
    return Batch(torch.arange(ROWS), Padded(0.3 * sound, lengths * (TONE + GAP)), targets(symbols, lengths))


def seen(generator: torch.Generator) -> Batch:
    """Four squares, each of one of four colours, and these colours row by row."""
    symbols = torch.randint(0, 4, (ROWS, 4), generator=generator)
    grid = COLOURS[symbols].view(ROWS, 2, 2, 3).permute(0, 3, 1, 2)
    pixels = grid.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    noise = torch.randint(0, 25, pixels.shape, generator=generator, dtype=torch.uint8)
    return Batch(torch.arange(ROWS), Padded(pixels + noise, torch.full((ROWS,), 4)), targets(symbols, torch.full((ROWS,), 4)))


def learned(config: ModelConfig, source: EndShape, make: Maker, *, num_steps: int, loss: LossConfig) -> Seq2Seq:
    """A model after so many steps, in evaluation mode."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    model = build_model(config.model_copy(update={"embedding_size": 24, "embedding_dropout": 0.0}), source, WORDS).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, num_steps)
    for _ in range(num_steps):
        sums = training_loss(model, make(generator), loss=loss, forced=1.0)
        optimizer.zero_grad()
        (sums.loss / sums.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def share_right(model: Seq2Seq, batch: Batch) -> float:
    """Rows that greedy decoding writes without an error."""
    memory = model.encode(batch.source)
    state, previous, written = model.start(memory), torch.full((ROWS,), WORDS.bos_id), []
    for _ in range(batch.target.data.shape[1]):
        logits, state = model.step(previous, state, memory)
        previous = logits.argmax(-1)
        written.append(previous)
    right = (torch.stack(written, dim=1) == batch.target.data) | ~batch.target.mask
    return float(right.all(dim=1).float().mean())


def test_10_a_conformer_with_ctc_learns_tones() -> None:
    """By its CTC layer alone, and by the decoder beside it."""
    config = ModelConfig(
        frontend=SoundConfig(subsampling="stack", factor=4, spec_augment=None),
        encoder=ConformerConfig(**SELF, kernel_size=5),
        decoder=TransformerDecoderConfig(**SELF),
        ctc=True,
    )
    model = learned(config, HEARD, heard, num_steps=140, loss=LossConfig(label_smoothing=0.0, ctc_weight=0.5))
    unseen = heard(torch.Generator().manual_seed(9))
    outputs = ctc_search(model, unseen.source, SearchConfig(beam_size=1, ctc_weight=1.0))
    wanted = [row[: length - 1] for row, length in zip(unseen.target.data.tolist(), unseen.target.lengths.tolist(), strict=True)]
    right = sum(list(found[0].tokens) == row for found, row in zip(outputs, wanted, strict=True))
    assert right >= 0.9 * ROWS, f"CTC: {right} of {ROWS} rows are right"
    assert share_right(model, unseen) >= 0.9


PICTURES = {
    "cnn-attend": ModelConfig(
        frontend=CnnConfig(widths=(16, 32)), encoder=NoEncoderConfig(), decoder=RecurrentDecoderConfig(**ADDITIVE, gate=True)
    ),
    "patches-transformer": ModelConfig(
        frontend=PatchesConfig(width=24, heads=3, feed_forward=32),
        encoder=TransformerEncoderConfig(**SELF),
        decoder=TransformerDecoderConfig(**SELF),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_10_the_colours_of_a_picture_are_learned(name: str) -> None:
    model = learned(PICTURES[name], SEEN, seen, num_steps=180, loss=LossConfig(label_smoothing=0.0))
    assert share_right(model, seen(torch.Generator().manual_seed(9))) >= 0.9
