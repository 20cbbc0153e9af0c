"""Schedules, weight decay, the optimiser's stored state, limits."""

from pathlib import Path

import pytest
import torch
from torch import nn

from transduce.errors import CheckpointError
from transduce.model.blocked import has_blocks
from transduce.train import muon
from transduce.train.limits import end_reason, eta_seconds, progress_share
from transduce.train.muon import Muon, orthogonal
from transduce.train.optim import OptimizerConfig, build_optimizer, optimizer_tensors, restore_optimizer
from transduce.train.schedule import Plateau, ScheduleConfig, learning_rate_factor
from transduce.train.settings import TrainConfig
from transduce.train.state import RunState
from transduce.train.storage import read_tensors, write_tensors


def factor(kind: str, step: int, progress: float = 0.0, **settings: object) -> float:
    config = ScheduleConfig.model_validate({"kind": kind, "warmup_steps": 100, **settings})
    return learning_rate_factor(config, step, progress=progress, width=256, plateau=Plateau(factor=0.25))


@pytest.mark.parametrize("kind", ["inverse_sqrt", "cosine", "linear", "constant"])
def test_warm_up_is_a_straight_line_to_the_peak(kind: str) -> None:
    assert factor(kind, 1) == pytest.approx(0.01)
    assert factor(kind, 50) == pytest.approx(0.5)
    assert factor(kind, 100) == pytest.approx(1.0)


def test_decays() -> None:
    assert factor("inverse_sqrt", 400) == pytest.approx(0.5)
    assert factor("noam", 100) == pytest.approx(256**-0.5 * 100**-0.5)
    assert factor("noam", 400) == pytest.approx(256**-0.5 * 400**-0.5)
    assert factor("noam", 50) == pytest.approx(256**-0.5 * 50 * 100**-1.5)
    assert factor("cosine", 500, 0.5) == pytest.approx(0.5)
    assert factor("cosine", 500, 1.0, final_factor=0.1) == pytest.approx(0.1)
    assert factor("linear", 500, 0.75) == pytest.approx(0.25)
    assert factor("plateau", 500) == pytest.approx(0.25)
    assert factor("constant", 10**6) == 1.0


def test_plateau_remembers() -> None:
    config = ScheduleConfig(kind="plateau", plateau_patience=2)
    memory = Plateau()
    history = []
    for improved in (True, False, True, False, False, False, False, False):
        memory = memory.after_validation(config, improved)
        history.append(memory.factor)
    assert history == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_limits() -> None:
    settings = TrainConfig(max_steps=100, max_minutes=10, max_epochs=4, early_stop_patience=3, accumulate=2)
    state = RunState(step=20, minutes=5.0, epoch=1, batch=10)
    assert end_reason(settings, state) is None
    assert progress_share(settings, state, num_batches=40) == pytest.approx(0.5)  # the minutes are the furthest
    assert eta_seconds(settings, state, num_batches=40, seconds_per_step=1.0) == pytest.approx(110 / 2)
    for reached in (RunState(step=100), RunState(minutes=10.0), RunState(epoch=4), RunState(stale=3)):
        assert end_reason(settings, reached)
    assert eta_seconds(TrainConfig(), state, num_batches=40, seconds_per_step=1.0) is None


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        torch.default_generator.manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()


def test_only_matrices_decay() -> None:
    model = small_model()
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.1), model)
    decayed, spared = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and all(parameter.ndim == 2 for parameter in decayed["params"])
    assert spared["weight_decay"] == 0.0 and len(spared["params"]) == 4


@pytest.mark.parametrize("kind", ["adam", "adamw", "adafactor", "muon"])
def test_stored_state_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    config = OptimizerConfig.model_validate({"kind": kind, "learning_rate": 0.01})
    model = small_model()
    optimizer = build_optimizer(config, model)
    take_steps(model, optimizer, 3)
    write_tensors(tmp_path / "state.safetensors", optimizer_tensors(optimizer, model))
    again = small_model()
    again.load_state_dict(model.state_dict())
    resumed = build_optimizer(config, again)
    restore_optimizer(resumed, again, read_tensors(tmp_path / "state.safetensors"))
    take_steps(model, optimizer, 2)
    take_steps(again, resumed, 2)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="another model"):
        restore_optimizer(resumed, again, {"exp_avg/nobody.weight": torch.zeros(1)})


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_a_step_of_muon_is_orthogonal(shape: tuple[int, int]) -> None:
    """Whatever the gradient's singular values, those of the step are alike, and its directions are the gradient's."""
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, -1, len(values))) @ right
    turned = orthogonal(torch.stack([torch.randn(shape), 100 * matrix]))[1]
    found = left.t() @ turned @ right.t()
    assert found.diag().min() > 0.6 and found.diag().max() < 1.3
    assert (found - torch.diag(found.diag())).abs().max() < 0.1


def test_muon_turns_matrices_between_vectors_alone() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "inner": nn.Linear(4, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 5)})
    optimizer = build_optimizer(OptimizerConfig(kind="muon"), model)
    turned = [parameter for group in optimizer.param_groups if group["orthogonal"] for parameter in group["params"]]
    assert [id(parameter) for parameter in turned] == [id(model["inner"].weight)]


def test_muon_learns() -> None:
    """Its steps go down, at a rate that suits AdamW."""
    torch.manual_seed(0)
    model, inputs = small_model(), torch.randn(20, 3)
    optimizer = build_optimizer(OptimizerConfig(kind="muon", learning_rate=0.02), model)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.skipif(not has_blocks(torch.bfloat16), reason="loops for products in bfloat16 are for AMD's processors that have them")
@pytest.mark.parametrize("shape", [(64, 64), (64, 192), (192, 64), (128, 256)])
def test_loops_step_as_torch_does(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps and the same memory after some of them, up to the rounding to bfloat16; what has no gradient stays."""

    def after_steps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        weight, unused = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.ones(shape))
        group = {"params": [weight, unused], "orthogonal": True, "weight_decay": 0.1}
        optimizer, begin = Muon([group], lr=0.1), weight.detach().clone()
        for _ in range(3):
            weight.grad = torch.randn(shape) * torch.logspace(0, -1, shape[1])
            optimizer.step()
        assert weight.grad is None
        return weight.detach() - begin, optimizer.state[weight]["momentum_buffer"], unused.detach()

    moved, mean, unused = after_steps()
    monkeypatch.setattr(muon, "knows", lambda _matrix: False)
    expected, expected_mean, _ = after_steps()
    assert (moved - expected).norm() < 0.03 * expected.norm()
    torch.testing.assert_close(mean, expected_mean)
    assert torch.equal(unused, torch.ones(shape))
