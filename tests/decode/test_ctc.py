"""CTC prefix scores, joint search and search on CTC alone, against the sum over every path of tiny lattices."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.ctc import FLOOR, JointScorer, Prefixes
from transduce.decode.ctc_only import best_paths, ctc_search, forced_prefix_scores, prefix_beam
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import EnsembleScorer
from transduce.decode.search import search
from transduce.errors import ConfigError
from transduce.model.frontends import Vocabulary
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model

LENGTHS = [4, 2, 3]
SIZE = 4  # a blank, 0, and three labels
WORDS = Vocabulary(size=9, pad_id=0, bos_id=1, eos_id=2, unk_id=3)


def lattice(seed: int = 1) -> tuple[Tensor, Tensor]:
    """Log-probabilities (3, 4, SIZE) and their mask; what stands in the padding must not matter."""
    logits = torch.randn(3, 4, SIZE, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.log_softmax(-1), torch.arange(4)[None, :] < torch.tensor(LENGTHS)[:, None]


def outputs_of(logs: Tensor, length: int) -> dict[tuple[int, ...], float]:
    """Every output of one sentence with its probability, the sum over all paths."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(logs.shape[1]), repeat=length):
        found[tuple(token for token, _ in itertools.groupby(path) if token)] += math.exp(float(logs[range(length), list(path)].sum()))
    return found


def begins(outputs: dict[tuple[int, ...], float], prefix: tuple[int, ...]) -> float:
    return sum(share for output, share in outputs.items() if output[: len(prefix)] == prefix)


def test_prefix_scores_are_sums_over_paths() -> None:
    """Of all hypotheses of up to 3 tokens, repeats among them, in rows of different lengths."""
    logs, mask = lattice()
    exact = [outputs_of(logs[row], length) for row, length in enumerate(LENGTHS)]
    for hypothesis in itertools.chain.from_iterable(itertools.product(range(1, SIZE), repeat=length) for length in range(4)):
        prefixes = Prefixes.start(logs, mask, 0)
        for token in hypothesis:
            prefixes = prefixes.extended(torch.full((3,), token))
        scores, some = prefixes.all_scores(), prefixes.scores(torch.tensor([[1, 3]] * 3))
        for row, outputs in enumerate(exact):
            whole = begins(outputs, hypothesis)
            if not whole:
                assert float(prefixes.total[row]) < -1000
                continue
            assert float(prefixes.total[row]) == pytest.approx(math.log(whole), abs=1e-5)
            for token in range(1, SIZE):
                share = begins(outputs, (*hypothesis, token)) / whole
                assert float(scores[row, token]) == pytest.approx(math.log(share) if share else FLOOR, abs=1e-4)
            assert some[row].tolist() == pytest.approx(scores[row, [1, 3]].tolist(), abs=1e-5)
            end = outputs.get(hypothesis, 0.0) / whole
            assert float(prefixes.ended[row]) == pytest.approx(math.log(end), abs=1e-5) if end else float(prefixes.ended[row]) < -1000


def test_long_sources_stay_finite() -> None:
    logs = (torch.randn(1, 900, 6, generator=torch.Generator().manual_seed(1)) * 8).log_softmax(-1)
    prefixes = Prefixes.start(logs, torch.ones(1, 900, dtype=torch.bool), 0)
    for token in (1, 1, 2, 5) * 20:
        prefixes = prefixes.extended(torch.tensor([token]))
    assert prefixes.all_scores().isfinite().all() and prefixes.total.isfinite().all()
    assert float(prefixes.all_scores()[0, 1:].exp().sum() + prefixes.ended.exp()) == pytest.approx(1.0, abs=1e-3)


def test_forced_scores_sum_to_the_output() -> None:
    logs, mask = lattice()
    rows = [(1, 2), (), (3,), (2,), (1, 1), (1,)]
    scores = forced_prefix_scores(Prefixes.start(logs, mask, 0), rows)
    for number, output in enumerate(rows):
        exact = outputs_of(logs[number // 2], LENGTHS[number // 2]).get(output)
        assert float(scores[number].sum()) == pytest.approx(math.log(exact), abs=1e-5) if exact else float(scores[number].sum()) < -1000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_wide_prefix_beam_is_exact_and_the_best_path_is_the_best_path(seed: int) -> None:
    logs, mask = lattice(seed)
    for row, length in enumerate(LENGTHS):
        exact = outputs_of(logs[row], length)
        found = prefix_beam(logs[row, :length].exp().double().numpy(), 100, blank_id=0)
        assert found == sorted(exact, key=lambda output: -exact[output])[:100]
        narrow = prefix_beam(logs[row, :length].exp().double().numpy(), 3, blank_id=0)
        assert narrow[0] == found[0]
    assert best_paths(Prefixes.start(logs, mask, 0).frames, 0) == [
        tuple(token for token, _ in itertools.groupby(logs[row, :length].argmax(-1).tolist()) if token)
        for row, length in enumerate(LENGTHS)
    ]


def test_a_layer_that_is_sure_of_what_may_not_be_written_leaves_an_output() -> None:
    frames = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.8]]).double().numpy()
    assert prefix_beam(frames, 2, blank_id=0)[0] == (1, 2)


def joint_model(size: int = WORDS.size, ctc: bool = True) -> Seq2Seq:
    torch.manual_seed(2)
    encoder, decoder = {"kind": "gru", "width": 8}, {"kind": "gru", "width": 8, "attention_size": 8}
    config = ModelConfig.model_validate({"embedding_size": 8, "encoder": encoder, "decoder": decoder, "ctc": ctc})
    target = Vocabulary(size=size, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
    model = build_model(config, WORDS, target).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)  # so that scores differ
    return model


def sources() -> Padded:
    return Padded(torch.randint(4, 9, (4, 9), generator=torch.Generator().manual_seed(3)), torch.tensor([9, 5, 7, 3]))


@torch.inference_mode()
def forced(scorer: JointScorer, row: int, tokens: tuple[int, ...], *, ended: bool) -> list[float]:
    """The scorer's own scores of one output, fed alone."""
    state, scores, last = scorer.start().keep(torch.tensor([row]), torch.tensor([row])), [], 1
    for token in [*tokens, *([2] if ended else [])]:
        values, state = scorer.step(torch.tensor([last]), state)
        scores.append(float(values[0, token]))
        last = token
    return scores


@pytest.mark.parametrize("size", [9, 700])
@pytest.mark.parametrize("beam", [1, 4])
def test_joint_search_scores_what_the_scorer_gives(size: int, beam: int) -> None:
    """Sentences finish one after another and are dropped; with 700 tokens only the decoder's best get a CTC score."""
    scorer = JointScorer(joint_model(size), sources(), weight=0.4, candidates=64)
    config = SearchConfig(beam_size=beam, num_best=beam, max_length=6, ctc_weight=0.4, length_penalty="none")
    for row, found in enumerate(search(scorer, config=config)):
        for hypothesis in found:
            steps = forced(scorer, row, hypothesis.tokens, ended=not hypothesis.truncated)
            assert hypothesis.token_log_probabilities == pytest.approx(steps, abs=1e-3)
            assert hypothesis.score == pytest.approx(sum(steps), abs=1e-3)


def test_joint_scores_are_the_weighted_sum() -> None:
    """(1 - w) log p(decoder) + w log p(CTC), summed over an output, its end included."""
    model, source = joint_model(), sources()
    joint, decoder = JointScorer(model, source, weight=0.4, candidates=64), JointScorer(model, source, weight=0.0, candidates=64)
    with torch.inference_mode():
        memory = model.encode(source)
        logs = model.ctc.log_probabilities(memory.states)
    for output in ((4, 5), (6,), (7, 7)):
        exact = outputs_of(logs[3, :3], 3)[output]
        expected = 0.6 * sum(forced(decoder, 3, output, ended=True)) + 0.4 * math.log(exact)
        assert sum(forced(joint, 3, output, ended=True)) == pytest.approx(expected, abs=1e-3)


def test_a_wide_joint_beam_finds_the_best() -> None:
    model = joint_model()
    scorer = JointScorer(model, sources(), weight=0.5, candidates=64)
    config = SearchConfig(beam_size=40, max_length=2, ctc_weight=0.5, early_stop="never", length_penalty="none")
    words = range(4, 9)
    every = [output for length in range(3) for output in itertools.product(words, repeat=length)]
    for row, (best,) in enumerate(search(scorer, config=config)):
        scores = {output: sum(forced(scorer, row, output, ended=True)) for output in every}
        assert best.tokens == max(scores, key=scores.__getitem__)
        assert best.score == pytest.approx(max(scores.values()), abs=1e-3)


@pytest.mark.parametrize("beam", [1, 3])
def test_ctc_alone(beam: int) -> None:
    """Outputs never hold special tokens, their scores are the sums over their paths, and the answer to a sentence is its own."""
    model, source = joint_model(), sources()
    config = SearchConfig(beam_size=beam, num_best=beam, ctc_weight=1.0, length_penalty="none")
    results = ctc_search(model, source, config)
    with torch.inference_mode():
        logs = model.ctc.log_probabilities(model.encode(source).states)
    for row, found in enumerate(results):
        assert found == sorted(found, key=lambda hypothesis: -hypothesis.score)
        for hypothesis in found:
            assert all(token > 3 for token in hypothesis.tokens) and not hypothesis.truncated
            assert sum(hypothesis.token_log_probabilities) == pytest.approx(hypothesis.score)
        alone = ctc_search(model, Padded(source.data[row : row + 1, : source.lengths[row]], source.lengths[row : row + 1]), config)[0]
        assert [hypothesis.tokens for hypothesis in alone] == [hypothesis.tokens for hypothesis in found]
        assert [hypothesis.score for hypothesis in alone] == pytest.approx([hypothesis.score for hypothesis in found], abs=1e-4)
    exact = outputs_of(logs[3, :3], 3)
    for hypothesis in results[3]:
        assert hypothesis.log_probability == pytest.approx(math.log(exact[hypothesis.tokens]), abs=1e-4)
    assert beam == 1 or len(results[0]) == 3


def test_ctc_alone_marks_what_it_cuts() -> None:
    model, source = joint_model(), sources()
    (free, *_), (cut, *_) = (
        ctc_search(model, source, SearchConfig(beam_size=1, ctc_weight=1.0, max_length=limit))[0] for limit in (None, 1)
    )
    assert len(free.tokens) > 1 and cut.tokens == free.tokens[:1] and cut.truncated
    assert cut.token_log_probabilities == pytest.approx(free.token_log_probabilities[:1])


def test_an_ensemble_of_joint_scorers_of_one_model_is_that_scorer() -> None:
    scorer = JointScorer(joint_model(), sources(), weight=0.4, candidates=64)
    config = SearchConfig(beam_size=3, max_length=5, ctc_weight=0.4)
    (one, both) = (search(part, config=config) for part in (scorer, EnsembleScorer([scorer, scorer])))
    assert [found[0].tokens for found in one] == [found[0].tokens for found in both]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a model with a CTC layer"):
        JointScorer(joint_model(ctc=False), sources(), weight=0.4, candidates=8)
    with pytest.raises(ConfigError, match="needs a model with a CTC layer"):
        ctc_search(joint_model(ctc=False), sources(), SearchConfig(ctc_weight=1.0))
    with pytest.raises(ValidationError, match="ctc_weight=1 reads the output off"):
        SearchConfig(ctc_weight=1.0, min_length=2)
