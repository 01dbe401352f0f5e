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
    WrappedModel,
)  # fmt: skip
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.statefile import digest

TILT = LatentTilt(WrappedModel(nn.Identity(), 1), nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1)
SHORT = {"chains": 3, "warm_up": 20}
SAMPLERS = [
    SNIS(pool=600, chunk=50), SNIS(pool=600, chunk=50, resampling="without_replacement"),
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


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_stopped_draws_go_on_to_the_same_bits(sampler, tmp_path):
    seen = []

    def after(steps):
        def track(items, what):
            for i, item in enumerate(items):
                if i == steps:
                    raise StoppedError
                seen.append(item)
                yield item

        return track

    whole, parts = drawn(sampler, after(None)), len(seen)
    seen.clear()
    for _ in range(2):
        with pytest.raises(StoppedError), checkpoints(tmp_path, every=0):
            drawn(sampler, after(1))
    with pytest.raises(ValueError, match="checkpoint: expected that of the same fit"), checkpoints(tmp_path):
        drawn(sampler, after(None), TILT * 1.2)
    with checkpoints(tmp_path):
        assert drawn(sampler, after(None)) == whole
    assert len(seen) == parts  # none was done twice
