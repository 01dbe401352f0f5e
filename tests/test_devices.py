"""Every public path on another device than the CPU, with a random generator of either, played by `pretend_device`."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import latentebm as lb
from latentebm.checks import check_rng
from latentebm.data.toy import Rings
from latentebm.devices import pick_device
from latentebm.ebm.learned_sampler import AmortizedRecipe, fit_amortized
from latentebm.ebm.noise import NoiseEnergy
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.evaluation.quadrature import Grid
from latentebm.evaluation.ratio import fit_ratio
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.imputation import impute_each
from latentebm.models.networks import mlp
from latentebm.models.sampler_net import SamplerNet
from latentebm.rng import seeded
from tests.conftest import bars
from tests.pretend_device import DEVICE, DeviceGenerator, pretend_device

KERNELS = [lb.ULA(0.1), lb.MALA(0.1), lb.SGLD(), lb.ImproperSGLD(0.1, 0.3), lb.RandomWalk(0.1), lb.PCN(0.3)]
KERNELS += [lb.PCNL(0.3), lb.EllipticalSlice()]
SAMPLERS = [lb.SNIS(pool=300, resampling=r) for r in ("multinomial", "residual", "without_replacement")]
SAMPLERS += [lb.Rejection(pilot=200), lb.ISIR(proposals=3), lb.TemperedSMC(particles=32), lb.Auto(pool=300)]
SAMPLERS += [lb.ParallelTempering(ladder=(0.0, 0.5, 1.0), rounds=2, warm_up=2), lb.PMC(lb.MALA(0.1), n_steps=2, size=8)]
SAMPLERS += [lb.Langevin(kernel=kernel, n_steps=2) for kernel in KERNELS]


@pytest.fixture
def device():
    with pretend_device() as device:
        yield device


@pytest.fixture(params=[torch.Generator, DeviceGenerator], ids=["cpu", "device"])
def g(request, device):
    return request.param().manual_seed(0)


def points(n: int = 40, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def energy(g: torch.Generator, **more: float) -> lb.EnergyNet:
    return lb.EnergyNet(2, hidden=(8,), generator=g, **more).to(DEVICE)


def model() -> lb.WrappedModel:
    with seeded(0):
        return lb.WrappedModel(nn.Linear(2, 3).to(DEVICE), 2)


def tilt(g: torch.Generator, **more: float) -> lb.LatentTilt:
    return lb.LatentTilt(model(), energy(g, **more))


def debiaser(device: torch.device | str, **more: object) -> lb.Debiaser:
    small = {"width": 16, "epochs": 1, "tilt_steps": 3, "folds": 2, "pool": 200, "langevin_steps": 2}
    return lb.Debiaser(**{**small, "precision": "fp32", "device": str(device), **more})


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(getattr(s, "kernel", s)).__name__)
def test_samplers(sampler, g):
    draws = copy.deepcopy(sampler).draw(tilt(g), 4, generator=g)
    assert {t.device for t in (draws.x, draws.latent, draws.log_weight)} == {DEVICE}


@pytest.mark.parametrize(("dim", "references"), [(4, 1000), (2, 48)])
def test_the_shares_of_a_learned_prior(dim, references, device):
    x = bars(1000, 0).images
    here, fitted = (debiaser(d, latent_dim=dim).fit(x, x[:references]) for d in ("cpu", device))
    assert torch.allclose(here.energy_.log_ratio, fitted.energy_.log_ratio.cpu(), atol=1e-2)
    for sampler in ("snis", "mala"):
        assert fitted.set_params(sampler=sampler).sample(4).x.device == DEVICE


@pytest.mark.parametrize(("space", "network"), [("latent", "conv"), ("data", "mlp")])
def test_the_estimator(space, network, device, tmp_path):
    biased, reference = bars(48, 0).images, bars(12, 1).images
    known = {"space": space, "network": network, "sharpen": 0.5, "prior": "normal"}
    here, fitted = (debiaser(d, **known).fit(biased, reference) for d in ("cpu", device))
    for module, same in ((here.vae_, fitted.vae_), (here.energy_, fitted.energy_)):  # a seed means the same everywhere
        for a, b in zip(module.parameters(), same.parameters(), strict=True):
            assert torch.allclose(a, b.cpu(), atol=1e-4)
    for objective in {"latent": ("contrastive", "score"), "data": ("contrastive", "amortized")}[space]:
        other = copy.copy(fitted).set_params(objective=objective, gradient_penalty=0.1)
        other.fit_tilt(reference)
    for sampler in ("mala", "pmc"):
        assert fitted.set_params(sampler=sampler).sample(3, strength=0.5).x.device == device
    fitted.sample_prior(2), fitted.weigh(100), fitted.gain(reference)
    fitted.set_params(sampler="snis").save(tmp_path)
    for kind in ("cpu", device.type):
        opened, codes = lb.Debiaser.load(tmp_path, device=kind), points().to(kind)
        assert opened.sample(2).x.device.type == kind
        assert torch.allclose(opened.vae_.decode(codes).cpu(), fitted.vae_.decode(points()).cpu(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::latentebm.tilting.supports.SupportWarning")
def test_tilts_of_any_model(g):
    reference, recipe = points(30, 3).cpu(), lb.TiltRecipe(steps=2)
    for features in (None, lambda x: x[:, :2]):
        found = lb.tilt_generator(model(), reference, features=features, recipe=recipe, folds=2, pool=100, generator=g)
        assert found.sample_base(2, generator=g).device == DEVICE
    sign = lb.Attribute(lambda x: x[:, 0] > 0, {False: 0.4, True: 0.6}, "sign")
    found = lb.tilt_attributes(model(), sign, pool=2000, generator=g)
    lb.expected_shares(found, sign, pool=500, generator=g)
    lb.SNIS(pool=100).draw(found, 2, generator=g)
    one = tilt(g, limit=2.0)
    other = lb.LatentTilt(one.model, energy(g, limit=2.0))
    lb.SNIS(pool=100).draw(lb.ProductTilt(one, lb.NegatedTilt(other)), 2, generator=g)
    lb.bracket_log_z(one, chains=10, generator=g)
    flow = lb.spline_flow(2, transforms=1, hidden=(8,), generator=g)
    baked = lb.bake(one, flow=flow, recipe=lb.BakeRecipe(draws=40, steps=2), generator=g)
    assert baked.draw(one, 3, generator=g).x.device == DEVICE


def test_fits_follow_their_model(g):
    x, base = points().cpu(), lambda n, rng: torch.randn(n, 2, generator=rng, device=rng.device)
    for start in ("buffer", "data"):
        recipe = lb.MCMCRecipe(epochs=1, batch_size=20, buffer_size=30, n_steps=2, start=start, restart=0.1, noise=0.1)
        lb.fit_ebm(energy(g), x, recipe, base=base, generator=g)
    for sigma in ({"sigma": 0.1}, {"method": "sliced"}, {"method": "exact"}):
        fit_score(energy(g), x, ScoreRecipe(steps=2, batch=8, **sigma), generator=g)
    noisy = NoiseEnergy(2, low=0.1, high=1.0, hidden=(8,), generator=g).to(DEVICE)
    fit_score(noisy, x, ScoreRecipe(steps=2, batch=8, method="multiscale"), generator=g)
    for entropy in ("variational", "mutual-information", "scales"):
        source = SamplerNet(2, 2, noise=0.1, batch_norm=entropy == "scales", generator=g).to(DEVICE)
        fit_amortized(energy(g), source, x, AmortizedRecipe(steps=2, batch=16, entropy=entropy), generator=g)
    for kind in (lb.ConditionalSampler, lb.JointSampler, lb.UnconditionalSampler):
        net = mlp((2, 8, 2), generator=g).to(DEVICE)
        chains, sampler = lb.PMC(lb.ULA(0.1), n_steps=2, size=30), kind(net, base, classes=2)
        lb.fit_jem(
            net, x, torch.arange(40) % 2, lb.JEMRecipe(batch_size=20), sampler=sampler, chains=chains, generator=g
        )
        assert sampler.sample(4, lb.ULA(0.1), 1, generator=g).x.device == DEVICE


def test_a_buffer_opens_on_another_device(device, tmp_path):
    lb.ReplayBuffer(points()).save(tmp_path / "buffer.safetensors")
    found = [lb.ReplayBuffer.load(tmp_path / "buffer.safetensors", device=d).x for d in ("cpu", str(device))]
    assert [t.device.type for t in found] == ["cpu", device.type]
    assert torch.equal(found[0], found[1].cpu())


def test_missing_data(g):
    x, mask = points(12, 3).cpu(), torch.ones(12, 3)
    mask[::3, 0] = 0
    for missing_model in (None, "self-masking"):
        fitted = lb.MIWAE(["gaussian", "student_t", "bernoulli"], 2, width=8, missing_model=missing_model).to(DEVICE)
        x[:, 2] = (x[:, 2] > 0).float()
        fit_miwae(fitted, x, mask, MIWAERecipe(steps=2, batch_size=8, k=2), generator=g)
    assert impute_each([fitted], x[:2], mask[:2], draws=3, seed=0).device == DEVICE
    for space in ("latent", "data"):
        small = {"members": 2, "rounds": 1, "copies": 2, "draws": 5, "recipe": lb.TiltRecipe(steps=2)}
        assert lb.tilt_miwae(fitted, x, mask, space=space, **small, generator=g).sample(2, pool=20, generator=g)


def test_the_imputer(device):
    x = points(12, 3).cpu().double().numpy()
    x[::3, 0] = np.nan
    here, there = (
        lb.MIWAEImputer(latent_dim=1, width=8, steps=2, draws=3, device=str(d)).fit(x).transform(x[:3])
        for d in ("cpu", device)
    )
    assert np.allclose(here, there, atol=1e-4)


def test_diagnostics_and_baselines(g):
    x, y = points(30), points(30) + 0.1
    lb.agreement(x, y, generator=g, permutations=9)
    lb.classifier_test(x, y, generator=g, permutations=9)
    lb.stein_test(lambda u: u.square().sum(1) / 2, x, generator=g, bootstraps=9)
    lb.resample(x[:, 0], 4, generator=g)
    Rings().sample(3, generator=g)
    Grid(4.0, 8).sample(energy(g), 3, generator=g)
    images = bars(16, 0).float01().to(DEVICE)
    fit_ratio(images, images, steps=1, generator=g)


FAULTS = {
    "generator": lambda x: x + torch.randn(x.shape, generator=torch.Generator(), device=x.device),
    "reverse": lambda x: x + torch.randn(x.shape, generator=DeviceGenerator()).to(x),
    "tensor": lambda x: x + torch.ones(3),
    "numpy": lambda x: torch.from_numpy(np.tanh(x.detach().numpy())),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault, device):
    net = model()
    net.decoder.register_forward_hook(lambda module, given, made: FAULTS[fault](made))
    rng = torch.Generator().manual_seed(0)
    with pytest.raises(RuntimeError, match=r"device type for generator|same device|numpy"):
        lb.SNIS(pool=50).draw(lb.LatentTilt(net, energy(rng)), 3, generator=rng)


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu", "gpu", "cpu:7", 3, None])
def test_absent_devices_are_refused(name):
    with pytest.raises(ValueError, match=r"^device: expected .*; pass"):
        pick_device(name)


def test_a_generator_of_an_absent_device_is_refused():
    with pytest.raises(ValueError, match=r"generator.device: expected a device of this machine, got meta"):
        check_rng(DeviceGenerator())


class Exhausted(nn.Module):
    """An energy whose evaluation of more points at once than it has room for finds no memory."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.scale = room, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError
        return self.scale * x.square().sum(1)


def test_out_of_memory_says_what_to_lower(rng):
    small = lb.LatentTilt(lb.WrappedModel(nn.Identity(), 2), Exhausted(30))
    with pytest.raises(ValueError, match=r"^chunk: expected what fits .* chunk=100; pass chunk=25"):
        lb.SNIS(pool=400, chunk=100).draw(small, 5, generator=rng)
    assert len(lb.SNIS(pool=400, chunk=25).draw(small, 5, generator=rng).x) == 5  # the advice serves
    with pytest.raises(ValueError, match=r"^chunk: expected what fits .* chunk=50; pass chunk=12"):
        lb.run_chains(Exhausted(49), torch.zeros(50, 2), lb.ULA(0.1), 2, generator=rng)
    recipe = lb.MCMCRecipe(epochs=1, batch_size=64, buffer_size=70, n_steps=1)
    with pytest.raises(ValueError, match=r"^batch_size: expected what fits .* batch_size=64; pass batch_size=16"):
        lb.fit_ebm(Exhausted(127), torch.randn(80, 2, generator=rng), recipe, generator=rng)
