"""Chains, weights and masks against the same mathematics written plainly: loops, densities, double precision."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from latentebm.missing.mechanisms import ByClass, MissingDataWarning, MNARDataset
from latentebm.rng import normal, uniform
from latentebm.sampling import MALA, PCN, PCNL, SGLD, ULA, ImproperSGLD, RandomWalk, WeightSums, run_chains
from latentebm.sampling.compiled.perceptrons import _packed
from latentebm.sampling.importance import places
from latentebm.sampling.mcmc.chains import _blocks, _Walk
from latentebm.sampling.mcmc.state import start_chains
from latentebm.sampling.target import piecewise_constant
from tests.sampling_targets import A, B, C, GaussianTilt, gen


class Walled(GaussianTilt):
    """The tilt in double precision, its energy infinite beyond a wall and NaN in a corner."""

    def energy(self, u):
        value = 0.5 * ((u @ A.to(u)) * u).sum(1) - u @ B.to(u) + C
        value = torch.where(u[:, 0] > 1.5, math.inf, value)
        return torch.where((u[:, 0] < -1) & (u[:, 1] < -1), math.nan, value)


def slope_at(target, x, alone):
    """Potential and gradient of one point: of the energy alone, or with the base distribution."""
    x = x.clone().requires_grad_()
    value = target.energy(x[None])[0] - (0 if alone else target.log_base(x[None])[0])
    return float(value.detach()), torch.autograd.grad(value, x)[0]


def log_normal(y, mean, variance):
    return float(-((y - mean).square() / (2 * variance)).sum())


def proposed(kernel, t, x, slope, noise):
    """Mean, variance and value of a kernel's proposal."""
    drift, scale = kernel.scales(t)
    p = 1.0 if kernel.preconditioner is None else kernel.preconditioner
    if isinstance(kernel, PCN):
        mean, variance = math.sqrt(1 - kernel.beta**2) * x, kernel.beta**2
    elif isinstance(kernel, PCNL):
        d = kernel.delta
        mean, variance = ((2 - d) * x - 2 * d * slope) / (2 + d), 8 * d / (2 + d) ** 2
    else:
        mean, variance = x - drift * p * slope, scale**2 * p
    return mean, variance, mean + (variance if torch.is_tensor(variance) else torch.tensor(variance)).sqrt() * noise


def one_step(kernel, target, t, x, noise, chance):
    """One step of one chain by the definition of its kernel: where it goes, and what is to be counted."""
    alone = kernel.alone

    def at(y):
        value, slope = slope_at(target, y, alone)
        finite = math.isfinite(value) and bool(torch.isfinite(slope).all())
        met = kernel.clip is not None and not float(slope.norm()) <= kernel.clip
        if met:
            slope = slope * (kernel.clip / slope.norm())
        return value, slope if kernel.gradient else 0 * slope, finite, met

    value, slope, _, _ = at(x)
    mean, variance, y = proposed(kernel, t, x, slope, noise)
    new, back, finite, met = at(y)
    alpha = 1.0
    if kernel.adjusted and finite:
        temperature = getattr(kernel, "temperature", 1.0)
        law = lambda v, z: -v / temperature + (log_normal(z, 0, 1) if alone else 0)  # noqa: E731
        ratio = law(new, y) - law(value, x)
        ratio += log_normal(x, *proposed(kernel, t, y, back, noise)[:2]) - log_normal(y, mean, variance)
        alpha = math.exp(min(ratio, 0))
    moves = finite and (not kernel.adjusted or float(chance) < alpha)
    return y if moves else x, (alpha if finite and kernel.adjusted else 0.0, float(met), float(not finite))


KERNELS = [
    ULA(0.2, clip=1.0),
    ULA(0.3, temperature=0.5, preconditioner=torch.tensor([2.0, 0.5])),
    SGLD(a=1.0, b=2.0, gamma=0.7, temperature=2.0),
    ImproperSGLD(alpha=0.3, sigma=0.9),
    MALA(0.4, preconditioner=torch.tensor([0.5, 1.5]), clip=0.8),
    MALA(0.6, temperature=2.0),
    RandomWalk(0.9, preconditioner=torch.tensor([0.5, 1.5])),
    PCN(0.7),
    PCNL(0.8),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: type(k).__name__)
def test_chains_step_by_the_definition_of_their_kernel(kernel):
    """Eleven steps of five chains, in blocks of eight and chunks of two; the path of two of them, every third step."""
    start = 0.5 * torch.randn(5, 2, generator=gen(3)).double()
    state = start_chains(kernel.sees(Walled(), start), start)._replace(step=4, alone=kernel.alone)
    run = run_chains(Walled(), state, kernel, 11, generator=gen(1), chunk=2, trace=4, thin=3, compile=False)
    rng, x, counts, path = gen(1), start.clone(), torch.zeros(3).double(), []
    for block in (8, 1, 1, 1):
        steps = []
        for first in (0, 2, 4):
            part = x[first : first + 2]
            noise = normal((block, *part.shape), rng, part)
            chances = uniform((block, len(part)), rng, part) if kernel.adjusted else torch.zeros(block, len(part))
            places = []
            for k in range(block):
                for i in range(len(part)):
                    moving = (kernel, Walled(), 4 + len(path) + k, part[i].clone(), noise[k, i], chances[k, i])
                    part[i], counted = one_step(*moving)
                    counts += torch.tensor(counted).double()
                places.append(part.clone())
            steps.append(torch.stack(places))
        path += list(steps[0])
    torch.testing.assert_close(run.state.position, x)
    torch.testing.assert_close(run.trace, torch.stack(path)[2::3])
    energy, _ = zip(*(slope_at(Walled(), point, kernel.alone) for point in x), strict=True)
    torch.testing.assert_close(run.state.energy, torch.tensor(energy).double())
    assert (run.state.step, run.state.alone, run.info.steps) == (15, kernel.alone, 11)
    assert run.info.reverted == counts[2] > 0
    assert run.info.clipped == pytest.approx(float(counts[1]) / 55, rel=1e-6)
    assert run.info.acceptance == pytest.approx(float(counts[0]) / 55 if kernel.adjusted else 1.0, rel=1e-6)
    assert run.info.step_size == kernel.scales(14)[0 if kernel.gradient else 1]


def test_many_acceptances_are_summed_in_double_precision_and_blocks_are_bounded():
    x = torch.zeros(2, 3)
    assert _Walk(start_chains(lambda x: x.sum(1), x), 1).counts.dtype == torch.float64
    for n, numbers, block, on_gpu, expected in (
        (19, 1 << 20, 8, False, [8, 8, 1, 1, 1]),
        (9, (1 << 20) + 1, 8, False, [1] * 9),
        (70, 1 << 20, 64, True, [32, 32, 6]),
        (64, 1 << 30, 64, True, [1] * 64),
        (130, 1, 64, True, [64, 64, 2]),
        (64, 1, 64, True, [64]),
    ):
        assert _blocks(n, SimpleNamespace(is_cuda=on_gpu, numel=lambda k=numbers: k), block) == expected


@pytest.mark.parametrize("groups", [1, 3, 7])
def test_places_hold_one_of_each_group_by_weight(groups, monkeypatch):
    monkeypatch.setattr(places, "HELD", groups * 6 if groups < 7 else 10**6)
    u, energy = torch.randn(7, 3, 2, generator=gen(1)), torch.randn(7, 3, generator=gen(2))
    w = 2 * torch.randn(7, 3, generator=gen(3)).double()
    w[:2, 1] = w[3:6, 2] = -math.inf
    held, rng = places.Places(7, u[0]), gen(4)
    for k in range(7):
        held.take(u[k], energy[k], w[k], rng)
    rng, seat = gen(4), torch.zeros(groups, 3, dtype=torch.long)
    group = [k * groups // 7 for k in range(7)]
    for k in range(7):
        chance = uniform((3,), rng, w)
        for i in range(3):
            total = sum(math.exp(w[j, i]) for j in range(k + 1) if group[j] == group[k])
            if group[k] not in group[:k] or (total and chance[i] < math.exp(w[k, i]) / total):
                seat[group[k], i] = k
    for g in range(groups):
        for i in range(3):
            assert torch.equal(held.u[g, i], u[seat[g, i], i])
            assert held.energy[g, i] == energy[seat[g, i], i].double()
            mine = [w[k, i] for k in range(7) if group[k] == g]
            assert held.log_sum[g, i] == pytest.approx(float(torch.stack(mine).logsumexp(0)))
    assert held.log_mean().tolist() == pytest.approx(w.exp().mean(0).log().tolist())
    rows = places.ordered_systematic(held.log_sum.flatten(), held.u.flatten(0, 1), 3, generator=gen(5))
    went, at, energies = held.resampled(generator=gen(5))
    for row, i, x, e in zip(rows.tolist(), went.tolist(), at, energies, strict=True):
        assert i == row % 3
        assert torch.equal(x, held.u[row // 3, i])
        assert e == held.energy[row // 3, i]


def test_points_are_drawn_in_the_order_of_their_first_component():
    for seed in range(6):
        u = torch.randn(30, 3, generator=gen(seed)) * torch.tensor([0.1, 3.0, 0.5]) + torch.tensor([5.0, 0.0, 0.0])
        w, start = torch.randn(30, generator=gen(9)), torch.rand(3, generator=gen(seed)).double() - 0.5
        centred = u.double() - u.double().mean(0)
        leading = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        score = centred @ (leading * torch.sign(start @ leading))
        torch.testing.assert_close(places._first_component(u, gen(seed)), score)
        rng = gen(seed)
        torch.rand(3, generator=rng)
        shift, p, drawn = torch.rand(1, generator=rng).item(), w.double().softmax(0), []
        for point in ((k + shift) / 20 for k in range(20)):
            below = 0.0
            for row in sorted(range(30), key=lambda row: score[row]):
                below += float(p[row])
                if point < below:
                    drawn.append(row)
                    break
        assert places.ordered_systematic(w, u, 20, generator=gen(seed)).tolist() == drawn
    alike = places.ordered_systematic(torch.zeros(3), torch.ones(3, 2), 6, generator=gen())
    assert alike.bincount().tolist() == [2, 2, 2]


def test_weights_of_zero_alone_are_worth_nothing():
    sums = WeightSums(30)
    sums.add(torch.full((30,), -math.inf))
    assert (sums.ess, sums.log_z, sums.log_z_se, sums.pareto_k) == (0, -math.inf, math.inf, None)
    assert not sums.report()["reliable"]


@pytest.mark.parametrize(("slope", "flat"), [(0.0, True), (0.9e-5, True), (1.1e-5, False), (1e-4, False)])
def test_an_energy_with_hardly_a_slope_is_piecewise_constant(slope, flat):
    class Steps(GaussianTilt):
        def energy(self, u):
            return (u[:, 0] > 0) * 0.002 + slope * u[:, 1]

    assert piecewise_constant(Steps(), torch.randn(9, 2, generator=gen())) == flat


def test_weights_are_packed_in_runs_of_outputs():
    w = torch.arange(2 * 3 * 15.0).reshape(2, 3, 15)
    parts = [w[:, :, a:b].reshape(2, -1) for a, b in ((0, 8), (8, 12), (12, 14), (14, 15))]
    assert torch.equal(_packed(w, 8), torch.cat(parts, 1))


def test_items_without_labels_and_a_single_item():
    with pytest.warns(MissingDataWarning):
        item = MNARDataset([(torch.arange(4.0), 7, "more")], ByClass({7: 1.0}, columns=[1]))[0]
    assert item[0].isnan().tolist() == [False, True, False, False]
    assert item[2:] == (7,)
    with pytest.raises(ValueError, match="y: expected labels, which ByClass"):
        MNARDataset(torch.rand(3, 4), ByClass({0: 0.5}))
