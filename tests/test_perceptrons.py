"""Energies as a compiled program: the same numbers as the module's, when it is taken, and where none can be built."""

from __future__ import annotations

import shutil
import tempfile

import pytest
import torch

from latentebm.adapters.from_module import WrappedModel
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.sampling import MALA, PMC, ULA, FusedMLP, Langevin, run_chains, start_chains
from latentebm.sampling.compiled.perceptrons import (
    CompiledPerceptrons,
    build_program,
    compiled_form,
    compiled_perceptrons,
)
from latentebm.sampling.target import value_and_grad


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
    expected, program = exact.value_and_grad(x.double()), compiled_form(net)
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
    program = compiled_form(energy_net(2, members=1, limit=None))
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
    program, x = compiled_form(energy_net(3)), torch.randn(500, 3, generator=gen())
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


def tilts(net):
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 2), net, transform=lambda e: 2 * torch.tanh(e))
    return tilt, ScaledTilt(tilt, 0.7)


def test_compiled_chains_are_those_of_the_plain_potential():
    x = torch.randn(40, 2, generator=gen())
    for target in tilts(energy_net(2)):
        plain, fast = (
            run_chains(target, x, MALA(0.3), 20, generator=gen(1), trace=4, compile=c) for c in (False, None)
        )
        torch.testing.assert_close(plain.trace, fast.trace, atol=1e-4, rtol=1e-4)
        assert plain.info.acceptance == pytest.approx(fast.info.acceptance, abs=1e-4)
        drawn = [
            Langevin(kernel=ULA(0.1), n_steps=10, compile=c).draw(target, 50, generator=gen(2)) for c in (False, True)
        ]
        torch.testing.assert_close(drawn[0].latent, drawn[1].latent, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", [Langevin(n_steps=8), Langevin(kernel=ULA(0.1)), PMC(MALA(0.3), size=50)])
def test_samplers_run_the_program_unless_told_not_to(monkeypatch, sampler):
    calls, own = [], CompiledPerceptrons.value_and_grad
    monkeypatch.setattr(CompiledPerceptrons, "value_and_grad", lambda p, x: calls.append(len(x)) or own(p, x))
    for tilt in tilts(energy_net(2)):
        sampler.draw(tilt, 50, generator=gen())
        assert len(calls) > 8
        calls.clear()
    Langevin(n_steps=8, compile=False).draw(tilt, 50, generator=gen())
    assert not calls


def test_a_program_of_another_energy_is_not_taken():
    class Other(EnergyNet):
        value_and_grad = None

        def forward(self, z):
            return z.square().sum(1)

    x = torch.ones(4, 2)
    moved = run_chains(Other(2), x, ULA(0.25, temperature=0.0), 8, generator=gen()).state.position
    torch.testing.assert_close(moved, x / 2**8)
    assert compiled_form(energy_net(2).double()) is None


class Doubled(LatentTilt):
    def energy(self, u):
        return 2 * super().energy(u)


class Wide(LatentTilt):
    def log_base(self, u):
        return super().log_base(u / 3)


class Halved(ScaledTilt):
    def energy(self, u):
        return super().energy(u) / 2


def test_a_tilt_of_another_energy_or_base_is_refused_until_it_has_its_gradient():
    parts = WrappedModel(torch.nn.Identity(), 2), energy_net(2)
    u = torch.randn(5, 2, generator=gen())
    for tilt in (Doubled(*parts), Wide(*parts), ScaledTilt(Wide(*parts), 0.5), Halved(LatentTilt(*parts), 0.8)):
        with pytest.raises(ValueError, match="potential from value_and_grad, got other ones"):
            start_chains(tilt, u)
        faulty = tilt.tilt if type(tilt) is ScaledTilt else tilt
        faulty.value_and_grad = None  # as the error advises
        leaf = u.clone().requires_grad_()
        value = tilt.energy(leaf) - tilt.log_base(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        assert far(value_and_grad(tilt, u), (value, slope)) < 1e-5
        assert far(start_chains(tilt, u)[1:3], (value, slope)) < 1e-5


@pytest.mark.parametrize(
    ("compiler", "match"),
    [
        ("false", "false failed: no message"),
        ("/no/such", "/no/such"),
        ("sh -c 'sleep 60'", "was not done after 0.2 s"),
        ("g++ 'open", "quot"),
    ],
)
def test_what_cannot_be_built_is_said_when_asked_for(monkeypatch, compiler, match):
    monkeypatch.setattr("latentebm.sampling.compiled.perceptrons.PATIENCE", 0.2)
    build_program.cache_clear()
    monkeypatch.setenv("CXX", compiler)
    net = FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 1)))
    assert compiled_form(net) is None  # no warning
    with pytest.warns(RuntimeWarning, match=f"compile: .*{match}.*torch.compile takes its place"):
        assert compiled_form(net, warn=True) is None
    build_program.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_a_compiler_behind_another_word_is_found(monkeypatch):
    build_program.cache_clear()
    monkeypatch.setenv("CXX", "env g++")
    assert compiled_form(FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 1)))) is not None
    build_program.cache_clear()


def test_without_a_folder_to_build_in_the_plain_steps_run(monkeypatch):
    build_program.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    assert compiled_form(FusedMLP(torch.nn.Sequential(torch.nn.Linear(2, 1)))) is None
    build_program.cache_clear()
