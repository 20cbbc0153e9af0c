"""The contract of every decoder where there is no source (DESIGN, section 3): invariants 1, 2, 3, 4, 6, 7 of language models.

5 is tested beside the codec (tests/data/test_no_source.py), 10 in tests/test_language_models.py.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import RNN, TARGET, TINY, make_batch

from transduce.config import parse_config
from transduce.data.batch import Batch, Padded
from transduce.data.no_source import NoSourceCodec
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import ModelScorer
from transduce.decode.search import search
from transduce.model.frontends import NoSource
from transduce.model.no_encoder import NoEncoderConfig
from transduce.model.no_source import NoSourceFrontendConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import DecoderConfig, ModelConfig, Seq2Seq, build_model
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.transformer import TransformerDecoderConfig
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train
from transduce.train.loss import LossConfig
from transduce.train.objective import training_loss

DECODERS: dict[str, DecoderConfig] = {
    "lstm": RecurrentDecoderConfig(kind="lstm", attention="none", bridge="zero", layers=2, **RNN),
    "gru": RecurrentDecoderConfig(kind="gru", attention="none", bridge="zero", residual=True, variational=True, layers=2, **RNN),
    "transformer": TransformerDecoderConfig(**TINY),
    "transformer-rope-grouped": TransformerDecoderConfig(**TINY, positions="rope", key_value_heads=2, norm="rms_norm"),
    "transformer-post-learned": TransformerDecoderConfig(**TINY, norm_place="post", positions="learned", max_positions=20),
    "ssru": SSRUDecoderConfig(**TINY),
}
each = pytest.mark.parametrize("decoder", DECODERS)
TARGETS = [6, 4, 3]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def make_model(decoder: str) -> Seq2Seq:
    torch.manual_seed(1)
    ends = {"frontend": NoSourceFrontendConfig(), "encoder": NoEncoderConfig(), "decoder": DECODERS[decoder]}
    return build_model(ModelConfig(embedding_size=10, **ends), NoSource(), TARGET).eval()


def nothing(rows: int) -> Padded:
    codec = NoSourceCodec()
    return codec.collate([row.data for row in codec.rows([""] * rows)], None)


def make_texts(lengths: list[int]) -> Batch:
    return replace(make_batch(lengths, lengths), source=nothing(len(lengths)))


@each
@torch.no_grad()
def test_1_steps_equal_the_whole_pass(decoder: str) -> None:
    model, batch = make_model(decoder), make_texts(TARGETS)
    memory = model.encode(batch.source)
    state, logits = model.start(memory), []
    for previous in model.previous(batch.target).unbind(1):
        output, state = model.step(previous, state, memory)
        logits.append(output)
    torch.testing.assert_close(torch.stack(logits, 1), model.head(model(batch)), **CLOSE)
    assert model.attention(batch) is None


@each
@torch.no_grad()
def test_2_padding_never_changes_an_answer(decoder: str) -> None:
    model, batch = make_model(decoder), make_texts(TARGETS)
    together = model(batch)
    for row, length in enumerate(TARGETS):
        alone = Batch(batch.ids[:1], nothing(1), Padded(batch.target.data[row : row + 1, :length], batch.target.lengths[row : row + 1]))
        torch.testing.assert_close(together[row, :length], model(alone)[0], **CLOSE)


@each
@torch.no_grad()
def test_3_the_future_is_not_seen(decoder: str) -> None:
    model, batch = make_model(decoder), make_texts([7, 7, 7])
    changed = batch.target.data.clone()
    changed[:, 3] = 4 + (changed[:, 3] - 3) % 7
    hidden, other = model(batch), model(replace(batch, target=Padded(changed, batch.target.lengths)))
    torch.testing.assert_close(other[:, :4], hidden[:, :4], atol=1e-6, rtol=1e-6)
    assert ((other[:, 4] - hidden[:, 4]).abs().amax(dim=1) > 1e-4).all(), "the next position must see the changed token"


@each
@torch.no_grad()
def test_4_a_score_in_a_beam_is_the_teacher_forced_one(decoder: str) -> None:
    model = make_model(decoder)
    greedy, beam = (
        search(ModelScorer(model, nothing(2)), config=SearchConfig(beam_size=size, num_best=size, max_length=6, length_penalty="none"))
        for size in (1, 4)
    )
    assert greedy[0][0].tokens == greedy[1][0].tokens and len(beam[0]) == 4
    for hypothesis in (*greedy[0], *beam[0]):
        written = [*hypothesis.tokens, *([] if hypothesis.truncated else [TARGET.eos_id])]
        target = Padded(torch.tensor([written]), torch.tensor([len(written)]))
        logs = model.head(model(Batch(torch.arange(1), nothing(1), target))).log_softmax(-1)[0]
        assert hypothesis.score == pytest.approx(float(logs.gather(1, target.data[0][:, None]).sum()), abs=1e-4)


@each
def test_7_accumulation_equals_the_large_batch(decoder: str) -> None:
    batch, gradients = make_texts([6, 4, 3, 1]), []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 3), slice(3, 4)]):
        model, total = make_model(decoder), 0.0
        for part in parts:
            target = Padded(batch.target.data[part], batch.target.lengths[part])
            sums = training_loss(model, Batch(batch.ids[part], nothing(len(target.lengths)), target), loss=LossConfig(), forced=1.0)
            sums.loss.backward()  # type: ignore[no-untyped-call]
            total += sums.loss.item()
        gradients.append([total, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for whole, parted in zip(gradients[0][1:], gradients[1][1:], strict=True):
        torch.testing.assert_close(whole, parted, atol=1e-4, rtol=1e-3)


@each
def test_every_weight_of_a_language_model_learns(decoder: str) -> None:
    """Nothing is left of what looks at a source: no weight without a use."""
    model = make_model(decoder)
    training_loss(model, make_texts(TARGETS), loss=LossConfig(), forced=1.0).loss.backward()  # type: ignore[no-untyped-call]
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []


@each
def test_6_resume_is_bit_for_bit(decoder: str, tmp_path: Path) -> None:
    """Six steps are three and three more."""
    draw = random.Random(1)
    (tmp_path / "t.txt").write_text("".join("".join(draw.choices("abcd ", k=6)) + "e\n" for _ in range(40)), encoding="utf-8")

    def tree(run: str, steps: int) -> dict[str, object]:
        corpus = {"target": str(tmp_path / "t.txt")}
        return {
            "preset": "lm-lstm",
            "run_dir": str(tmp_path / run),
            "data": {
                "train": corpus,
                "valid": corpus,
                "cache_dir": str(tmp_path / "cache"),
                "max_target_tokens": 15,
                "max_tokens_per_batch": 60,
            },
            "model": {"decoder": DECODERS[decoder].model_dump(mode="json"), "embedding_size": 10, "max_target_length": 15},
            "train": {
                "max_steps": steps,
                "save_every_steps": 3,
                "precision": "fp32",
                "schedule": {"kind": "inverse_sqrt", "warmup_steps": 2},
            },
        }

    whole = train(parse_config(tree("whole", 6)), SilentProgress())
    train(parse_config(tree("parts", 3)), SilentProgress())
    resumed = resume(tmp_path / "parts", ["train.max_steps=6"], SilentProgress())
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
