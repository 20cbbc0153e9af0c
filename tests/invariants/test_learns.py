"""Invariant 10: it learns copy and reverse. A hundred or two small steps; then greedy decoding repeats unseen rows."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from transduce.data.batch import Batch, Padded
from transduce.model.frontends import Vocabulary
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig

SYMBOLS = Vocabulary(size=10, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
LENGTH, ROWS = 4, 64
BIRNN = RecurrentEncoderConfig(kind="gru", width=32, dropout=0.0)
SELF = {"layers": 2, "width": 32, "heads": 4, "feed_forward": 64, "dropout": 0.0}
MODELS = {
    "fixed-vector": ModelConfig(
        encoder=RecurrentEncoderConfig(kind="lstm", width=96, bidirectional=False, dropout=0.0),
        decoder=RecurrentDecoderConfig(kind="lstm", width=96, attention="none", bridge="copy", dropout=0.0),
        reverse_source=True,
    ),
    "bahdanau": ModelConfig(encoder=BIRNN, decoder=RecurrentDecoderConfig(kind="gru", width=48, attention_size=32, dropout=0.0)),
    "luong": ModelConfig(encoder=BIRNN, decoder=RecurrentDecoderConfig(kind="lstm", width=64, attention="general", dropout=0.0)),
    "transformer": ModelConfig(
        encoder=TransformerEncoderConfig(**SELF, positions="rope"), decoder=TransformerDecoderConfig(**SELF, positions="rope")
    ),
    "ssru": ModelConfig(encoder=TransformerEncoderConfig(**SELF), decoder=SSRUDecoderConfig(**SELF)),
}


def make_batch(generator: torch.Generator, *, turned: bool) -> Batch:
    """Rows of 2 to LENGTH symbols with end-of-sequence, and their copy or reverse."""
    lengths = torch.randint(2, LENGTH + 1, (ROWS,), generator=generator)
    symbols = torch.randint(4, SYMBOLS.size, (ROWS, LENGTH), generator=generator)
    source = torch.full((ROWS, LENGTH + 1), SYMBOLS.pad_id)
    target = source.clone()
    for row, length in enumerate(lengths.tolist()):
        source[row, :length] = symbols[row, :length]
        target[row, :length] = symbols[row, :length].flip(0) if turned else symbols[row, :length]
    source[torch.arange(ROWS), lengths] = SYMBOLS.eos_id
    target[torch.arange(ROWS), lengths] = SYMBOLS.eos_id
    return Batch(torch.arange(ROWS), Padded(source, lengths + 1), Padded(target, lengths + 1))


@torch.no_grad()
def greedy(model: Seq2Seq, source: Padded) -> Tensor:
    """(B, LENGTH + 1) the most probable token of each step."""
    memory = model.encode(source)
    state, previous, written = model.start(memory), torch.full((ROWS,), SYMBOLS.bos_id), []
    for _ in range(LENGTH + 1):
        logits, state = model.step(previous, state, memory)
        previous = logits.argmax(-1)
        written.append(previous)
    return torch.stack(written, dim=1)


@pytest.mark.parametrize("turned", [False, True], ids=["copy", "reverse"])
@pytest.mark.parametrize("name", list(MODELS))
def test_10_it_learns(name: str, turned: bool) -> None:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    config = MODELS[name].model_copy(update={"embedding_size": 32, "embedding_dropout": 0.0})
    model = build_model(config, SYMBOLS, SYMBOLS)
    num_steps = 120
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, num_steps)
    for _ in range(num_steps):
        batch = make_batch(generator, turned=turned)
        loss = cross_entropy(model.head(model(batch)).flatten(0, 1), batch.target.data.flatten(), ignore_index=SYMBOLS.pad_id)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    unseen = make_batch(torch.Generator().manual_seed(9), turned=turned)
    right = (greedy(model, unseen.source) == unseen.target.data) | ~unseen.target.mask
    assert right.all(dim=1).float().mean() >= 0.9, f"{right.all(dim=1).float().mean():.2f} of the rows are right"
