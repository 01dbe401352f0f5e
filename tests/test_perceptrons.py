"""Energies as a program of their own: the same numbers as the module's, and what happens where none can be built."""

from __future__ import annotations

import pytest
import torch

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.energies import EnergyNet
from latentebm.models.scaled_tilt import ScaledTilt
from latentebm.models.tilts import LatentTilt
from latentebm.sampling import MALA, ULA, FusedMLP, Langevin, run_chains
from latentebm.sampling.compiled import perceptrons
from latentebm.sampling.compiled.perceptrons import compiled_perceptrons
from latentebm.sampling.mcmc.moves import value_and_grad


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def energy_net(dim, hidden=(24, 9), members=3, limit=4.0):
    net = EnergyNet(dim, hidden=hidden, members=members, limit=limit)
    for p in net.parameters():
        p.data.normal_(generator=gen(len(p))).mul_(0.5)
    return net


def far(found, expected):
    """Largest error of energy or gradient."""
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(found, expected, strict=True))


# Widths that leave every kind of remainder of the runs of outputs, no hidden layer, tiles not full, a far limit.
@pytest.mark.parametrize(
    ("dim", "hidden", "members", "limit", "n"),
    [
        (2, (256, 128), 1, None, 64),
        (10, (128, 64), 5, 20.0, 33),
        (3, (15, 7, 1), 2, 1.0, 1),
        (5, (), 3, 2.0, 100),
        (2, (16,), 2, 1e5, 40),
    ],
)
def test_the_program_agrees_with_the_module_in_double_precision(dim, hidden, members, limit, n):
    net = energy_net(dim, hidden, members, limit)
    exact = EnergyNet.from_config(net.config).double()
    exact.load_state_dict(net.state_dict())
    x = 2 * torch.randn(n, dim, generator=gen())
    expected, program = exact.value_and_grad(x.double()), net.compiled()
    tolerance = 1e-5 * (1 + max(t.abs().max().item() for t in expected))
    assert far(program.value_and_grad(x), expected) < tolerance
    # A weight, a bias or the limit that is off is seen.
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    biases[-1][-1] += 0.01
    assert far(compiled_perceptrons(weights, biases, limit).value_and_grad(x), expected) > tolerance
    biases[-1][-1] -= 0.01
    weights[0][-1, -1, -1] += 0.05
    assert far(compiled_perceptrons(weights, biases, limit).value_and_grad(x), expected) > tolerance


def test_extreme_points():
    program = energy_net(2, members=1, limit=None).compiled()
    x = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [torch.nan, 0.0], [torch.inf, 0.0], [0.3, 0.3]])
    energy, grad = program.value_and_grad(x)
    assert torch.isfinite(energy[:2]).all()
    assert torch.isfinite(grad[:2]).all()
    assert torch.isnan(energy[2])
    assert not torch.isfinite(energy[3])
    alone = program.value_and_grad(x[4:])
    assert energy[4] == alone[0][0]
    assert torch.equal(grad[4], alone[1][0])


def test_threads_and_types_change_nothing():
    program, x = energy_net(3).compiled(), torch.randn(500, 3, generator=gen())
    energy, grad = program.value_and_grad(x)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    again = program.value_and_grad(x.t().contiguous().t())
    torch.set_num_threads(threads)
    assert torch.equal(again[0], energy)
    assert torch.equal(again[1], grad)
    assert program.value_and_grad(x.double())[1].dtype == torch.float64
    with pytest.raises(ValueError, match=r"x: expected shape"):
        program(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"x: expected floating points, got torch.int64"):
        program(torch.zeros(2, 3).long())


@pytest.mark.parametrize(
    ("weights", "biases"),
    [([], []), ([(1, 2, 3)], [3]), ([(1, 2, 8), (1, 9, 1)], [8, 1]), ([(2, 2, 1)], [1]), ([(2, 1)], [1])],
    ids=["none", "three outputs", "widths apart", "a bias short", "no members"],
)
def test_layers_that_do_not_fit_are_refused(weights, biases):
    with pytest.raises(ValueError, match="weights: expected"):
        compiled_perceptrons([torch.ones(w) for w in weights], [torch.ones(b) for b in biases])


def test_compiled_chains_are_those_of_the_plain_potential():
    net = energy_net(2)
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 2), net, transform=lambda e: 2 * torch.tanh(e))
    x = torch.randn(40, 2, generator=gen())
    for target in (tilt, ScaledTilt(tilt, 0.7)):
        plain, fast = (
            run_chains(target.potential, x, MALA(0.3), 20, generator=gen(1), trace=4, compile=c) for c in (False, True)
        )
        assert target.potential.compiled() is not None
        torch.testing.assert_close(plain.trace, fast.trace, atol=1e-4, rtol=1e-4)
        assert plain.info.acceptance == pytest.approx(fast.info.acceptance, abs=1e-4)
    drawn = [Langevin(kernel=ULA(0.1), n_steps=10, compile=c).draw(tilt, 50, generator=gen(2)) for c in (False, True)]
    torch.testing.assert_close(drawn[0].latent, drawn[1].latent, atol=1e-4, rtol=1e-4)


def test_another_energy_or_precision_has_no_program():
    class Other(EnergyNet):
        def forward(self, z):
            return z.square().sum(1)

    class Mixed:
        def forward(self, z):
            return z.square().sum(1)

    class Inherited(Mixed, EnergyNet):
        def value_and_grad(self, z):
            return z.square().sum(1), 2 * z

    assert Other(2).compiled is None
    assert Inherited(2).compiled is None
    assert Inherited(2).value_and_grad(torch.ones(1, 2))[0] == 2
    assert energy_net(2).double().compiled() is None


def test_a_tilt_that_changes_energy_or_base_is_differentiated():
    class Doubled(LatentTilt):
        def energy(self, u):
            return 2 * super().energy(u)

    class Wide(LatentTilt):
        def log_base(self, u):
            return super().log_base(u / 3)

    class Halved(ScaledTilt):
        def energy(self, u):
            return super().energy(u) / 2

    parts = WrappedModel(torch.nn.Identity(), 2), energy_net(2)
    for tilt in (Doubled(*parts), ScaledTilt(Wide(*parts), 0.5), Halved(LatentTilt(*parts), 1.0), LatentTilt(*parts)):
        u = torch.randn(5, 2, generator=gen(), requires_grad=True)
        value = tilt.energy(u) - tilt.log_base(u)
        (slope,) = torch.autograd.grad(value.sum(), u)
        assert far(value_and_grad(tilt.potential, u.detach()), (value, slope)) < 1e-5


@pytest.mark.parametrize(("compiler", "match"), [("false", "false failed: no message"), ("/no/such", "/no/such")])
def test_what_cannot_be_built_is_said(monkeypatch, compiler, match):
    perceptrons._library.cache_clear()
    monkeypatch.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match=f"compile: .*{match}.*torch.compile takes its place"):
        assert FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 1))).compiled() is None
    perceptrons._library.cache_clear()
