"""Draws by several processes, played by threads of one: which part each draw comes from, and what is reported."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce

import pytest
import torch

from latentebm import processes
from latentebm.processes import exchanges, members
from latentebm.rng import child
from latentebm.sampling import MALA, SNIS, Langevin, RandomWalk
from latentebm.sampling.diagnostics import max_rhat
from latentebm.sampling.importance.pools import owners, pool_part
from latentebm.sampling.importance.weights import WeightSums
from latentebm.sampling.split import draw_split
from tests.sampling_targets import GaussianTilt, gen


class Threads:
    """A group of three whose exchanges go through a list."""

    size = 3

    def __init__(self, monkeypatch):
        self.own, self.wall, self.box = threading.local(), threading.Barrier(self.size, timeout=20), [None] * self.size
        for name in ("world", "rank", "gather", "gather_rows", "tree", "from_main", "together"):
            for module in (processes, exchanges, members):
                monkeypatch.setattr(module, name, getattr(self, name), raising=False)
        monkeypatch.setattr(exchanges, "group_rank", self.rank)

    def world(self):
        return 1 if members._SOLO.get() else self.size

    def rank(self):
        return self.own.rank

    def gather(self, value):
        self.box[self.own.rank] = value
        self.wall.wait()
        found = copy.deepcopy(self.box)
        self.wall.wait()
        return found

    def gather_rows(self, x):
        parts = self.gather(x)
        assert len({part.dtype for part in parts}) == 1
        return torch.cat(parts)

    def tree(self, value, merge):
        return reduce(merge, self.gather(value))

    def from_main(self, value):
        return self.gather(value)[0]

    def together(self, work):
        with processes.solo():
            return work()

    def draw(self, sampler, n, tilt, shown=None):
        def run(rank):
            self.own.rank = rank
            generator, names = gen(5), []
            drawn = draw_split(sampler, tilt, n, generator=generator, track=lambda x, name: names.append(name) or x)
            assert shown is None or (names == ([shown] if rank == 0 or sampler.pool > 2 else []))
            return drawn, torch.rand(1, generator=generator).item()

        with ThreadPoolExecutor(self.size) as pool:
            found, after = zip(*pool.map(run, range(self.size)), strict=True)
        assert len(set(after)) == 1
        for one in found[1:]:
            assert torch.equal(one.x, found[0].x)
            assert one.diagnostics == pytest.approx(found[0].diagnostics, nan_ok=True)
        return found[0]


@pytest.fixture
def threads(monkeypatch):
    return Threads(monkeypatch)


@pytest.mark.parametrize("pool", [2, 5_000])  # of two, a process has none
def test_each_draw_of_a_split_pool_is_its_owners(threads, pool):
    tilt, n, rng = GaussianTilt(), 40, gen(5)
    drawn = threads.draw(SNIS(pool=pool, chunk=700), n, tilt, "pool" if pool > 2 else None)
    streams = [processes.own_stream(gen(5), r) for r in range(3)]
    processes.own_stream(rng, 0)
    shared, rows = child(rng), [processes.share(pool, r, 3) for r in range(3)]
    parts = [pool_part(tilt, n, r, pool=pool, chunk=700, generator=g) for r, g in zip(rows, streams, strict=True)]
    owner = owners([part.sums.log_sum for part in parts], n, shared).tolist()
    latent = torch.stack([parts[r].latent[i] for i, r in enumerate(owner)])
    assert torch.equal(drawn.latent, latent)
    assert torch.equal(drawn.x, 2 * latent)
    torch.testing.assert_close(drawn.log_weight, -tilt.energy(latent))
    different = len({int(parts[r].index[i]) for i, r in enumerate(owner)})
    sums = reduce(WeightSums.merge, [part.sums for part in parts])
    expected = {"sampler": "snis", "pool": pool, **sums.report(), "duplicates": 1 - different / n}
    assert drawn.diagnostics == pytest.approx(expected)
    assert drawn.trace is None


@pytest.mark.parametrize("trace", [5, 0])
def test_split_chains_are_those_of_the_parts(threads, trace):
    tilt, sampler = GaussianTilt(), Langevin(kernel=MALA(0.5), n_steps=9, warm_up=0, trace=trace)
    drawn = threads.draw(sampler, 7, tilt)
    parts = [
        replace(sampler, trace=t).draw(tilt, n, generator=processes.own_stream(gen(5), r))
        for r, (n, t) in enumerate(((3, 2), (2, 2), (2, 1)) if trace else ((3, 0), (2, 0), (2, 0)))
    ]
    for name in ("x", "latent", "log_weight"):
        assert torch.equal(getattr(drawn, name), torch.cat([getattr(part, name) for part in parts]))
    d, each = drawn.diagnostics, [part.diagnostics for part in parts]
    assert torch.equal(drawn.trace, torch.cat([part.trace for part in parts], 1))
    assert d["acceptance"] == pytest.approx(sum(c["acceptance"] * n for c, n in zip(each, (3, 2, 2), strict=True)) / 7)
    assert d["rhat"] == pytest.approx(max_rhat(drawn.trace[4:]), nan_ok=True)
    assert (d["sampler"], d["steps"], d["reverted"], "reliable" in d) == ("mala", 9, 0, False)


def test_what_one_process_says_counts_for_all(threads):
    class Walled(GaussianTilt):
        def energy(self, u):
            return torch.where(u.abs().amax(1) > 3, torch.inf, super().energy(u))

    drawn = threads.draw(Langevin(kernel=RandomWalk(1e4), n_steps=6, warm_up=0), 4, Walled())
    d = drawn.diagnostics
    assert (d["reverted"], d["reliable"], d["why"]) == (24, False, "the chains hardly move: acceptance 0")
    few = Langevin(kernel=MALA(0.5), n_steps=2, warm_up=0)  # fewer chains than processes
    for sampler, n in ((few, 2), (SNIS(pool=60, resampling="systematic"), 30)):
        alone = sampler.draw(GaussianTilt(), n, generator=gen(5))
        drawn = threads.draw(sampler, n, GaussianTilt())
        assert torch.equal(drawn.x, alone.x)
        assert drawn.diagnostics == pytest.approx(alone.diagnostics, nan_ok=True)
        assert drawn.trace is alone.trace or torch.equal(drawn.trace, alone.trace)
    assert len(threads.draw(few, 3, GaussianTilt())) == 3

    class Double(GaussianTilt):
        def sample_base(self, n, *, generator):
            return super().sample_base(n, generator=generator).double()

        def energy(self, u):
            return u.square().sum(1)

    assert threads.draw(SNIS(pool=2), 5, Double()).latent.dtype == torch.float64
    shown = []
    track = lambda x, name: shown.append(name) or x  # noqa: E731
    pool_part(GaussianTilt(), 3, range(9), pool=9, chunk=4, generator=gen(), track=track)
    assert shown == ["pool"]
