"""Products of rounded operands: how far the energy moves, and that the chains follow the rounded one."""

from __future__ import annotations

import math

import pytest
import torch

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.sampling import MALA, ULA, FusedMLP, Langevin, run_chains
from latentebm.sampling.compiled import gpu_chains, rounding
from latentebm.sampling.compiled.rounding import RoundedPerceptrons, rounded


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def net(dim=1, members=2):
    energy = EnergyNet(dim, hidden=(24, 9), members=members, limit=4.0)
    for p in energy.parameters():
        p.data.normal_(generator=gen(len(p))).mul_(0.5)
    return energy


def law(potential):
    """Grid, and the density on it of e^{-U}, by quadrature."""
    x = torch.linspace(-8, 8, 4_001, dtype=torch.float64)
    return x, (-potential(x.float()[:, None]).detach().double()).softmax(0)


@pytest.mark.parametrize(("precision", "delta"), [("tf32", 5e-3), ("bf16", 4e-2)])
def test_densities_move_within_the_bound(precision, delta):
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 1), net())
    form = rounding.rounded_form(tilt, precision)
    x, exact = law(tilt.potential)
    _, moved = law(lambda u: form.value_and_grad(u)[0])
    off = float((form.value_and_grad(x.float()[:, None])[0] - tilt.potential(x.float()[:, None])).detach().abs().max())
    assert 0 < off < delta
    ratio = moved / exact
    assert float(ratio.max()) <= math.exp(2 * off) * (1 + 1e-6)
    assert float(ratio.min()) >= math.exp(-2 * off) * (1 - 1e-6)
    chains = Langevin(n_steps=120, precision=precision).draw(tilt, 4_000, generator=gen(1)).latent[:, 0].double()
    mean = (x * moved).sum()
    sd = ((x - mean).square() * moved).sum().sqrt()
    assert abs(float(chains.mean() - mean)) < 4.5 * float(sd) / math.sqrt(4_000)


def test_a_coarser_rounding_is_seen(monkeypatch):
    monkeypatch.setattr(rounding, "rounded", lambda x, precision: (8 * x).round() / 8)
    with pytest.raises(AssertionError):
        test_densities_move_within_the_bound("bf16", 4e-2)


def test_rounding_is_to_nearest_and_keeps_what_fits():
    x = torch.randn(10_000, generator=gen())
    for precision, step in (("tf32", 2.0**-11), ("bf16", 2.0**-8)):
        once = rounded(x, precision)
        assert torch.equal(rounded(once, precision), once)
        assert float(((once - x) / x).abs().max()) <= step
        assert abs(float((once - x).mean())) < step / 50  # no drift towards zero
    energy = net(3)
    found = RoundedPerceptrons(*energy.perceptrons, "fp32").value_and_grad(torch.randn(9, 3, generator=gen()))
    for a, b in zip(found, energy.value_and_grad(torch.randn(9, 3, generator=gen())), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_precisions_are_refused_where_they_mean_nothing():
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="precision: expected fp32 where the energy is no perceptron, got 'bf16'"):
        run_chains(lambda x: x.square().sum(1), x, ULA(0.1), 2, generator=gen(), precision="bf16")
    with pytest.raises(ValueError, match="precision: expected one of fp32, tf32, bf16"):
        Langevin(precision="fp8")


def test_what_the_gpu_program_takes_of_a_target():
    energy, model = net(2), WrappedModel(torch.nn.Identity(), 2)
    tilt = LatentTilt(model, energy)
    assert gpu_chains._scaled(energy)[1:] == (1.0, False)
    assert gpu_chains._scaled(ScaledTilt(ScaledTilt(tilt, 0.5), 0.5))[1:] == (0.25, True)
    assert gpu_chains._scaled(LatentTilt(model, energy, torch.tanh)) is None
    assert gpu_chains._scaled(lambda x: x) is None
    assert gpu_chains.gpu_form(tilt, torch.zeros(1, 2)) is None  # a CPU has its own
    fused = FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.SiLU(), torch.nn.Linear(5, 1)))
    assert run_chains(fused, torch.zeros(3, 2), MALA(0.1), 3, generator=gen(), precision="tf32").info.steps == 3


def test_padding_changes_no_energy():
    energy = net(3, members=2)
    program = gpu_chains.GPUPerceptrons(*energy.perceptrons, strength=0.5, base=True)
    W1, T1, B1, W2, T2, B2, W3, B3, *low = program.tensors
    x = torch.nn.functional.pad(torch.randn(6, 3, generator=gen()), (0, 13))
    h = torch.nn.functional.silu(x @ (W1 + low[0]) + B1[:, None])
    h = torch.nn.functional.silu(h @ (W2 + low[2]) + B2[:, None])
    free = (h * W3[:, None]).sum(-1) + B3[:, None]
    tilt = ScaledTilt(LatentTilt(WrappedModel(torch.nn.Identity(), 3), energy), 0.5)
    value = 0.5 * (4 * torch.tanh(free / 4)).mean(0) + 0.5 * x.square().sum(1) + program.constant
    torch.testing.assert_close(value, tilt.potential(x[:, :3]), atol=1e-5, rtol=1e-5)
    assert torch.equal(T1 + low[1], (W1 + low[0]).mT)
    assert torch.equal(T2 + low[3], (W2 + low[2]).mT)
