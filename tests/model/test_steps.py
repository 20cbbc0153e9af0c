"""Numbers at both ends: embeddings, heads and mixtures against torch.distributions, and one path for training and search."""

import math

import pytest
import torch
from steps_models import DECODERS, ENCODERS, MIXTURE, make_batch, make_model, with_padding
from torch import Tensor, distributions

from transduce.data.batch import Padded
from transduce.decode.sampling import uniform_table
from transduce.errors import ConfigError
from transduce.model.frontends import TokenEmbedding, Vocabulary
from transduce.model.heads import TokenHead
from transduce.model.mixture import Mixture, MixtureLayout
from transduce.model.steps import StepsConfig, StepsEmbedding, StepsFrontend, StepsHead, StepsHeadConfig, steps_embedding, steps_head

COMBINATIONS = [("transformer", decoder) for decoder in DECODERS] + [(encoder, "transformer") for encoder in ENCODERS]


@pytest.mark.parametrize(("encoder", "decoder"), COMBINATIONS)
def test_steps_equal_teacher_forcing(encoder: str, decoder: str) -> None:
    model, batch = make_model(encoder, decoder), make_batch([4, 6], [5, 5])
    with torch.no_grad():
        expected = model.head(model(batch))
        memory = model.encode(batch.source)
        state, inputs = model.start(memory), model.previous(batch.target)
        for step in range(5):
            output, state = model.step(inputs[:, step], state, memory)
            torch.testing.assert_close(output, expected[:, step], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("encoder", "decoder"), COMBINATIONS)
@pytest.mark.parametrize("value", [1e6, math.nan])
def test_padding_never_matters(encoder: str, decoder: str, value: float) -> None:
    model, batch = make_model(encoder, decoder), make_batch([4, 6, 1], [5, 2, 3])
    padded = type(batch)(batch.ids, with_padding(batch.source, value, extra=3), with_padding(batch.target, value))
    mask = batch.target.mask
    with torch.no_grad():
        torch.testing.assert_close(model(padded)[mask], model(batch)[mask], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_see_only_the_frames_before_them(decoder: str) -> None:
    model, batch = make_model("gru", decoder), make_batch([4], [6])
    changed = Padded(batch.target.data.clone(), batch.target.lengths)
    changed.data[:, 3] += 1
    with torch.no_grad():
        before, after = model(batch), model(type(batch)(batch.ids, batch.source, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4])  # frame 3 enters the prediction of frame 4
    assert (before[:, 4] - after[:, 4]).abs().max() > 1e-4


def test_the_beginning_is_not_a_frame_of_zeros() -> None:
    torch.manual_seed(1)
    embedding = StepsEmbedding(3, 8)
    begin = embedding.begin(2, torch.device("cpu"))
    assert begin.shape == (2, 1, 4)
    assert (embedding(begin) - embedding(embedding.after(torch.zeros(2, 1, 3)))).abs().max() > 0.01
    target = Padded(torch.arange(12.0).view(2, 2, 3), torch.tensor([2, 1]))
    previous = embedding.previous(target)
    assert previous[:, 0].tolist() == [[0, 0, 0, 1]] * 2
    assert previous[0, 1].tolist() == [0, 1, 2, 0]


def test_hidden_layers_bend() -> None:
    torch.manual_seed(1)
    points = Padded(torch.tensor([[[-1.0], [0.0], [1.0]]]), torch.tensor([3]))
    for hidden_size, is_linear in ((0, True), (16, False)):
        vectors, lengths = StepsFrontend(StepsConfig(hidden_size=hidden_size), 1, output_size=4)(points)
        bend = (vectors[0, 0] + vectors[0, 2] - 2 * vectors[0, 1]).abs().max()
        assert bool(bend < 1e-5) == is_linear and lengths.tolist() == [3]
        head = StepsHead(StepsHeadConfig(hidden_size=hidden_size), 1, size=2)(points.data)
        assert bool((head[0, 0] + head[0, 2] - 2 * head[0, 1]).abs().max() < 1e-5) == is_linear


def test_numbers_stay_exact_under_autocast() -> None:
    torch.manual_seed(1)
    rows = Padded(torch.tensor([[[1.0001, 2.0], [1.0002, 2.0]]]), torch.tensor([2]))
    frontend, head = StepsFrontend(StepsConfig(), 2, output_size=4), StepsHead(StepsHeadConfig(), 4, size=2)
    plain = head(frontend(rows)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = head(frontend(rows)[0])
    assert cast.dtype == torch.float32 and torch.equal(plain, cast)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("full", [True, False])
def test_density_equals_torch_distributions(size: int, full: bool) -> None:
    mixture, reference = _random_mixture(size, full=full)
    values = torch.randn(5, 7, size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(mixture.log_probability(values), reference.log_prob(values), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixture.mean(), reference.mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("full", [True, False])
def test_samples_have_the_moments_of_the_density(full: bool) -> None:
    layout = MixtureLayout(2, 3, full=full, smallest_scale=0.01)
    raw = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(4))
    mixture, reference = layout.read(raw), _reference(layout.read(raw))
    uniform = uniform_table(1, torch.arange(20_000).numpy().astype("uint64"), samples=1, steps=3)
    samples = layout.read(raw.expand(20_000, -1)).sample(uniform)
    torch.testing.assert_close(samples.mean(0), mixture.mean(), atol=0.03, rtol=0)
    expected = torch.cov(reference.sample((200_000,)).T)
    torch.testing.assert_close(torch.cov(samples.T), expected, atol=0.08, rtol=0.05)
    # -E[log p] of the own samples is the entropy: wrong if the sampler and the density disagree in shape
    theirs = reference.log_prob(reference.sample((50_000,))).mean()
    torch.testing.assert_close(mixture.log_probability(samples).mean(), theirs, atol=0.04, rtol=0)


def test_temperature_narrows() -> None:
    layout = MixtureLayout(2, 3, full=True, smallest_scale=0.01)
    raw = torch.randn(layout.num_parameters, generator=torch.Generator().manual_seed(4)).expand(2000, -1)
    uniform = uniform_table(1, torch.arange(2000).numpy().astype("uint64"), samples=1, steps=3)
    cold, warm = (layout.read(raw).sample(uniform, temperature) for temperature in (0.01, 1.0))
    best = layout.read(raw[0]).means[layout.read(raw[0]).log_weights.argmax()]
    assert (cold - best).norm(dim=-1).quantile(0.99) < 0.6 < (warm - best).norm(dim=-1).quantile(0.5)


def test_extreme_numbers_stay_finite() -> None:
    layout = MixtureLayout(2, 3, full=True, smallest_scale=1e-3)
    for factor in (0.0, 50.0, -50.0, 500.0):
        raw = (factor * torch.linspace(-1, 1, layout.num_parameters)).requires_grad_()
        mixture = layout.read(raw)
        values = torch.tensor([1e3, -1e3])
        log_probability = mixture.log_probability(values)
        log_probability.backward()  # type: ignore[no-untyped-call]
        assert log_probability.isfinite() and raw.grad is not None and raw.grad.isfinite().all()
        for draw in (0.0, 1 - 2**-53):
            assert mixture.sample(torch.full((3,), draw, dtype=torch.float64)).isfinite().all()
    spike = layout.read(torch.full((layout.num_parameters,), -1e4))
    assert spike.log_probability(torch.full((2,), -1e4)) < 13  # a density that could grow without end would


def test_head_reads_its_own_numbers() -> None:
    config = StepsHeadConfig(kind="mixture", components=3, covariance="diagonal", stop=True)
    head = StepsHead(config, 5, size=4)
    parameters = head(torch.randn(2, 3, 5))
    assert parameters.shape == (2, 3, 3 * (1 + 2 * 4) + 1)
    assert head.mean(parameters).shape == (2, 3, 4)
    stop = head.stop_logits(parameters)
    assert stop is not None and torch.equal(stop, parameters[..., -1])
    assert head.log_probability(parameters, torch.zeros(2, 3, 4)).shape == (2, 3)
    changed = parameters.clone()
    changed[..., -1] += 1
    assert torch.equal(head.mean(changed), head.mean(parameters))  # the stop logit is no part of the frame
    assert head.stop_logits(parameters) is not None and StepsHead(StepsHeadConfig(), 5, size=4).stop_logits(parameters) is None


def test_a_regression_has_no_density() -> None:
    head = StepsHead(StepsHeadConfig(), 5, size=2)
    parameters = head(torch.randn(3, 5))
    assert not head.probabilistic and torch.equal(head.mean(parameters), parameters)
    with pytest.raises(ConfigError, match=r"model\.head\.kind = mixture"):
        head.log_probability(parameters, torch.zeros(3, 2))
    with pytest.raises(ConfigError, match=r"model\.head\.kind = mixture"):
        head.sample(parameters, torch.zeros(3, 3))


def test_text_targets_are_refused() -> None:
    words = Vocabulary(size=9, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
    with pytest.raises(ConfigError, match="text"):
        steps_head(TokenHead(4, 9, tied=None))
    with pytest.raises(ConfigError, match="text"):
        steps_embedding(TokenEmbedding(words, 4, dropout=0.0, word_dropout=0.0))
    model = make_model("gru", "gru", MIXTURE)
    assert steps_head(model.head) is model.head and steps_embedding(model.embedding) is model.embedding


def _random_mixture(size: int, *, full: bool) -> tuple[Mixture, distributions.Distribution]:
    """(5, 7) mixtures of three, and torch's reading of them."""
    layout = MixtureLayout(size, 3, full=full and size > 1, smallest_scale=0.01)
    mixture = layout.read(torch.randn(5, 7, layout.num_parameters, generator=torch.Generator().manual_seed(1)))
    return mixture, _reference(mixture)


def _reference(mixture: Mixture) -> distributions.Distribution:
    """The inverse covariance is A^T A with A = (I + mixing) over the scales."""
    size = mixture.means.shape[-1]
    mixing: Tensor | float = 0.0 if mixture.mixing is None else mixture.mixing
    factor = (torch.eye(size) + mixing) / mixture.scales[..., None]  # (..., M, C, C)
    covariance = torch.linalg.inv(factor.double().mT @ factor.double())
    parts = distributions.MultivariateNormal(mixture.means, covariance_matrix=covariance.float(), validate_args=False)
    weights = distributions.Categorical(logits=mixture.log_weights)
    return distributions.MixtureSameFamily(weights, parts, validate_args=False)
