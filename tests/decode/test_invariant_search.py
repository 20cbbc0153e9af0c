"""Invariant 4 over architectures: beam 1 == greedy, and a score of search == the teacher-forced score of its output."""

import numpy as np
import pytest
import torch

from transduce.data.batch import Batch, Padded, pad_tokens
from transduce.decode.beam import beam_search
from transduce.decode.forced import forced_log_probabilities
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.decode.scorers import EnsembleScorer, ModelScorer
from transduce.decode.search import make_rules, search
from transduce.decode.together import Search, search_together
from transduce.model.frontends import Vocabulary
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig

SOURCE = Vocabulary(size=30, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
TARGET = Vocabulary(size=300, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
STACK = {"width": 16, "heads": 2, "feed_forward": 32}
LSTM = RecurrentEncoderConfig(kind="lstm", width=16)
TRANSFORMER = TransformerEncoderConfig(layers=2, **STACK)
PARTS = {
    "lstm-additive": (LSTM, RecurrentDecoderConfig(kind="lstm", width=16, attention="additive")),
    "lstm-general": (LSTM, RecurrentDecoderConfig(kind="lstm", width=16, attention="general")),
    "gru-fixed": (RecurrentEncoderConfig(kind="gru", width=16), RecurrentDecoderConfig(kind="gru", width=16, attention="none")),
    "transformer": (TRANSFORMER, TransformerDecoderConfig(layers=2, **STACK)),
    "lstm-transformer-rope": (LSTM, TransformerDecoderConfig(layers=1, positions="rope", **STACK)),
    "ssru": (TRANSFORMER, SSRUDecoderConfig(layers=2, **STACK)),
}


def tiny(name: str, seed: int = 0) -> Seq2Seq:
    """Random weights, sharpened; the end's bias is set so that the end is the best token at a fifth of random positions."""
    encoder, decoder = PARTS[name]
    torch.manual_seed(seed)
    model = build_model(ModelConfig(encoder=encoder, decoder=decoder, embedding_size=16, tie="none"), SOURCE, TARGET).eval()
    rows = sources(12)
    target = pad_tokens([np.arange(20) * (place + 13) % 296 + 4 for place in range(12)], eos_id=TARGET.eos_id, pad_id=TARGET.pad_id)
    with torch.no_grad():
        model.embedding.weight.mul_(2)
        model.frontend.embedding.weight.mul_(2)
        model.head.weight.mul_(16)
        logits = model.head(model(Batch(torch.zeros(12), padded(rows), target))).flatten(0, 1)
        model.head.bias[TARGET.eos_id] += (logits.amax(1) - logits[:, TARGET.eos_id]).quantile(0.2)
    return model


def sources(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(5)
    rows = [generator.integers(4, SOURCE.size, size=length).astype(np.int32) for length in generator.integers(1, 9, size=count - 1)]
    return [*rows, np.array([], dtype=np.int32)]  # the last source is nothing but its end


def padded(rows: list[np.ndarray]) -> Padded:
    return pad_tokens(rows, eos_id=SOURCE.eos_id, pad_id=SOURCE.pad_id)


@pytest.mark.parametrize("name", PARTS)
def test_beam_one_is_greedy_is_the_naive_loop(name: str) -> None:
    model, rows = tiny(name), sources(9)
    scorer = ModelScorer(model, padded(rows), max_length=14)
    greedy = search(scorer, config=SearchConfig(beam_size=1))
    rules = make_rules(scorer, config=SearchConfig(beam_size=1, early_stop="first"))
    ((_, beam),) = search_together([Search(0, beam_search(scorer, rules))])
    for row, (walked,), (beamed,) in zip(rows, greedy, beam, strict=True):
        assert walked.tokens == beamed.tokens and walked.truncated == beamed.truncated
        assert walked.score == pytest.approx(beamed.score, abs=1e-4)
        assert walked.tokens == plain_greedy(model, padded([row]), 13)
    assert len({len(found.tokens) for (found,) in greedy}) > 1, "outputs that all end together would test little"


def plain_greedy(model: Seq2Seq, source: Padded, longest: int) -> tuple[int, ...]:
    """One sentence, teacher forcing from the start at every token."""
    tokens: list[int] = []
    with torch.inference_mode():
        while len(tokens) < longest:
            target = pad_tokens([np.array(tokens)], eos_id=TARGET.eos_id, pad_id=TARGET.pad_id)
            logits = model.head(model(Batch(torch.zeros(1), source, target)))[0, -1]
            logits[[TARGET.pad_id, TARGET.bos_id, TARGET.unk_id]] = float("-inf")
            if int(logits.argmax()) == TARGET.eos_id:
                break
            tokens.append(int(logits.argmax()))
    return tuple(tokens)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(beam_size=1),
        SearchConfig(beam_size=5, num_best=5),
        SearchConfig(beam_size=3, num_best=2, early_stop="never", length_penalty="average"),
        SearchConfig(num_best=2, sampling=SamplingConfig(temperature=0.7)),
    ],
    ids=["greedy", "beam", "beam-never", "sampling"],
)
def test_scores_are_teacher_forced_scores(name: str, config: SearchConfig) -> None:
    model, rows = tiny(name), sources(9)
    found = search(ModelScorer(model, padded(rows), max_length=14), config=config)
    for row, hypotheses in zip(rows, found, strict=True):
        for hypothesis in hypotheses:
            target = pad_tokens([np.array(hypothesis.tokens)], eos_id=TARGET.eos_id, pad_id=TARGET.pad_id)
            forced = forced_log_probabilities([model], [padded([row])], target)[0].tolist()
            wanted = forced[:-1] if hypothesis.truncated else forced
            assert hypothesis.token_log_probabilities == pytest.approx(wanted, abs=1e-4)
            assert hypothesis.log_probability == pytest.approx(sum(wanted), abs=1e-4)


@pytest.mark.parametrize("name", PARTS)
def test_alone_together_and_shuffled(name: str) -> None:
    model, rows = tiny(name), sources(9)
    config = SearchConfig(beam_size=4, num_best=2)
    together = search(ModelScorer(model, padded(rows), max_length=14), config=config)
    shuffled = search(ModelScorer(model, padded(rows[::-1]), max_length=14), config=config)[::-1]
    alone = [search(ModelScorer(model, padded([row]), max_length=14), config=config)[0] for row in rows]
    for some in (shuffled, alone):
        assert [[one.tokens for one in found] for found in some] == [[one.tokens for one in found] for found in together]
        scores = [one.score for found in together for one in found]
        assert [one.score for found in some for one in found] == pytest.approx(scores, abs=1e-4)


def test_ensemble_of_two_architectures() -> None:
    rows = sources(6)
    models = [tiny("lstm-additive"), tiny("transformer", seed=1)]
    found = search(EnsembleScorer([ModelScorer(model, padded(rows), max_length=14) for model in models]), config=SearchConfig(beam_size=3))
    targets = pad_tokens([np.array(one[0].tokens) for one in found], eos_id=TARGET.eos_id, pad_id=TARGET.pad_id)
    forced = forced_log_probabilities(models, [padded(rows)] * 2, targets)
    for row, (best,), length in zip(forced, found, targets.lengths.tolist(), strict=True):
        assert best.token_log_probabilities == pytest.approx(row[: length - int(best.truncated)].tolist(), abs=1e-4)
