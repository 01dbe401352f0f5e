"""Long draws that are stopped go on where they were, to the same draws bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latentebm import (
    HMC,
    ISIR,
    NUTS,
    PCN,
    PCNL,
    SNIS,
    EllipticalSlice,
    Langevin,
    LatentTilt,
    ParallelTempering,
    Rejection,
    TemperedSMC,
    TwoStage,
    WrappedModel,
)  # fmt: skip
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.statefile import digest
from latentebm.missing.imputation import impute, impute_each
from latentebm.missing.miwae import MIWAE
from latentebm.models.features import Attribute
from latentebm.models.seen.reference_set import features_of_both
from latentebm.rng import seeded
from latentebm.sampling.importance import two_stage
from latentebm.sampling.importance.resampling import RESAMPLING
from latentebm.tilting import attributes
from latentebm.tilting.attributes import tilt_attributes

TILT = LatentTilt(WrappedModel(nn.Identity(), 1), nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
SHORT = {"chains": 3, "warm_up": 20}
SAMPLERS = [
    *(SNIS(pool=600, chunk=50, resampling=name) for name in RESAMPLING),
    TwoStage(decodes=70, pilot=60, pool=900, chunk=20),
    Langevin(n_steps=90, warm_up=3, compile=False), Langevin(n_steps=90, warm_up=0, trace=0, compile=False),
    HMC(**SHORT), NUTS(**SHORT), Rejection(pilot=100, chunk=9), ISIR(n_steps=9), TemperedSMC(particles=60, ess=0.9),
    ParallelTempering(ladder=(0, 0.5, 1), warm_up=3, rounds=9), ParallelTempering(warm_up=0, rounds=3, trace=0),
    *(Langevin(kernel=k, n_steps=30, warm_up=3, compile=False) for k in (PCN(0.3), PCNL(0.3), EllipticalSlice())),
]  # fmt: skip


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def drawn(sampler, track, tilt=TILT):
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(torch.seed() % 1000)  # the global stream must not matter
    draws = sampler.draw(tilt, 20, generator=g, track=track)
    plain = {name: value for name, value in draws.diagnostics.items() if value is not None}
    return digest([draws.x, draws.latent, draws.log_weight, plain, g.get_state()])


def stops_and_goes_on(work, folder):
    """Stop some work three times, and ask it for the same result as if it had not been, with no part done twice."""
    seen = []

    def until(steps):
        def track(items, what):
            for item in items:
                if len(seen) == steps:
                    raise StoppedError
                seen.append(item)
                yield item

        return track

    whole, parts = work(until(None)), len(seen)
    seen.clear()
    for steps in (1, parts // 2, parts - 2):
        with pytest.raises(StoppedError), checkpoints(folder, every=0):
            work(until(steps))
    with pytest.raises(ValueError, match="checkpoint: expected that of the same fit"), checkpoints(folder):
        work(until(None), other=True)
    with checkpoints(folder):
        assert work(until(None)) == whole
    assert len(seen) == parts


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_stopped_draws_go_on_to_the_same_bits(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr(two_stage, "CHUNK", 200)  # several to a small pool
    stops_and_goes_on(lambda track, other=False: drawn(sampler, track, TILT * 1.2 if other else TILT), tmp_path)


def long(name, track, number=5):
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(torch.seed() % 1000)
    if name == "shares":
        of = Attribute(lambda x: nn.functional.one_hot((x[:, 0] > 0).long(), 2), {0: 0.4, 1: 0.6})
        tilt = tilt_attributes(WrappedModel(nn.Identity(), 1), of, pool=1000 * number, generator=g, track=track)
        return digest([tilt.net.state_dict(), g.get_state()])
    if name == "features":
        model, x = WrappedModel(nn.Identity(), 2), torch.randn(40, 2, generator=g)
        return digest(list(features_of_both(model, x, lambda x: x.square(), 3000 * number, g, track)))
    with seeded(0):
        model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
    x = torch.randn(100 * number, 2, generator=g)
    if name == "imputed":
        done = impute(model, x, (x < 1).float(), draws=20, multiple=2, generator=g, cells=99_999, track=track)
        return digest([list(done), g.get_state()])
    return digest(impute_each([model], x, (x < 1).float(), draws=20, seed=0, cells=99_999, track=track))


@pytest.mark.parametrize("name", ["shares", "features", "imputed", "each"])
def test_stopped_walks_go_on_to_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.setattr(attributes, "chunk_size", lambda numbers: 999)
    stops_and_goes_on(lambda track, other=False: long(name, track, 4 if other else 5), tmp_path)
