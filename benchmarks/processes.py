"""Pools of SNIS over many processes: a simulated merge of 1,024, wall time of two, and what each unit of work costs.

``python benchmarks/processes.py`` prints and writes benchmarks/processes.json; docs/devices.md builds its table on it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from itertools import zip_longest
from pathlib import Path

import torch
import torch.distributed as dist
from scipy.stats import kstest

from latentebm import MALA, SNIS, VAE, EnergyNet, Langevin, LatentTilt, WrappedModel, processes
from latentebm.rng import child
from latentebm.sampling.importance.pools import owners, pool_part
from latentebm.sampling.importance.weights import WeightSums
from latentebm.sampling.split import draw_split

HERE = Path(__file__).resolve().parent


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def known_tilt():
    """N(0, 1) tilted to N(−1, 1)."""
    return LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))


def mnist_tilt():
    """A VAE of 28 × 28 and an energy of the default size in 10-D, its weights at random, on which no cost depends."""
    vae, energy = VAE((1, 28, 28), 10), EnergyNet(10, members=5, limit=4.0, generator=gen())
    energy.weights[-1].data.normal_(generator=gen())
    return LatentTilt(vae.requires_grad_(False), energy.requires_grad_(False))


def seconds(work, repeats=3):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def simulated(world, pool, n):
    """The merge of a world's parts against one pool of the same weights."""
    tilt, one, parts = known_tilt(), WeightSums(pool), []
    for r in range(world):
        own, rows = processes.own_stream(gen(), r), processes.share(pool, r, world)
        parts.append(pool_part(tilt, n, rows, pool=pool, chunk=65_536, generator=own))
        again = processes.own_stream(gen(), r)
        child(again)
        one.add(-tilt.energy(tilt.sample_base(len(rows), generator=again)))
    log_sums = [part.sums.log_sum for part in parts]
    sums = [part.sums for part in parts]
    while len(sums) > 1:
        sums = [a if b is None else a.merge(b) for a, b in zip_longest(sums[::2], sums[1::2])]
    owner = owners(log_sums, n, gen(1))
    drawn = torch.stack([parts[int(r)].latent[i, 0] for i, r in enumerate(owner)])
    merged, single = sums[0].report(), one.report()
    return {
        "world": world,
        "pool": pool,
        "draws": n,
        "merged": merged,
        "single": single,
        "largest difference": max(abs(merged[k] - single[k]) for k in ("ess", "pareto_k", "log_z", "log_z_se")),
        "KS p-value of the draws": float(kstest(drawn.numpy(), "norm", args=(-1, 1)).pvalue),
    }


def units():
    tilt, rows = mnist_tilt(), 65_536
    with torch.no_grad():
        u = tilt.sample_base(rows, generator=gen())
        sums = [WeightSums(10**6) for _ in range(2)]
        for s in sums:
            s.add(torch.randn(10**5, generator=gen()))
        return {
            "base draw": seconds(lambda: tilt.sample_base(rows, generator=gen())) / rows,
            "energy": seconds(lambda: tilt.energy(u)) / rows,
            "decode": seconds(lambda: tilt.decode(u[:4_096])) / 4_096,
            "pool draw, all in all": seconds(
                lambda: pool_part(tilt, 10_000, range(4 * rows), pool=4 * rows, chunk=rows, generator=gen())
            )
            / (4 * rows),
            "merge of two tails of 10⁶": seconds(lambda: WeightSums(10**6).merge(sums[0]).merge(sums[1])),
        }


JOBS = {
    "snis, pool of 4·10⁶": lambda tilt: draw_split(SNIS(pool=4_000_000), tilt, 10_000, generator=gen()),
    "mala, 4,000 chains of 200 steps": lambda tilt: draw_split(
        Langevin(kernel=MALA(0.3), n_steps=200, warm_up=0, compile=False), tilt, 4_000, generator=gen()
    ),
}


def work(rank, world, folder):
    torch.set_num_threads(1)
    if world > 1:
        store = dist.FileStore(f"{folder}/store", world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    tilt, found = mnist_tilt(), {}
    tilt.energy(torch.zeros(2, 10))
    for name, job in JOBS.items():
        processes.gather(None)
        start = time.perf_counter()
        job(tilt)
        found[name] = time.perf_counter() - start
    if rank == 0:
        Path(f"{folder}/{world}.json").write_text(json.dumps(found))


def wall_times():
    context, found = multiprocessing.get_context("spawn"), {}
    with tempfile.TemporaryDirectory() as folder:
        for world in (1, 2):
            running = [context.Process(target=work, args=(rank, world, folder)) for rank in range(world)]
            for process in running:
                process.start()
            for process in running:
                process.join()
            found[world] = json.loads(Path(f"{folder}/{world}.json").read_text())
    return {
        name: {"one": found[1][name], "two": found[2][name], "ratio": found[2][name] / found[1][name]} for name in JOBS
    }


def model(unit, draws, ranks, n=10_000, dim=10, bandwidth=1.25e9, latency=5e-5):
    """Seconds of a pool and its merge: work per rank; tails up and down a tree; the draws, gathered."""
    tail = 8 * min(draws / 5, 3 * math.sqrt(draws))
    rounds = math.ceil(math.log2(ranks))
    bytes_moved = 2 * rounds * tail + n * (4 * dim + 12 + 4 * 784)
    merge = rounds * unit["merge of two tails of 10⁶"] * max(1.0, math.sqrt(draws / 1e6))
    work = draws / ranks * unit["pool draw, all in all"] + n / ranks * unit["decode"]
    return {"work": work, "merge": merge + bytes_moved / bandwidth + 4 * rounds * latency if ranks > 1 else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-wall-times", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {"units": units()}
    print(json.dumps(found["units"], ensure_ascii=False), flush=True)
    found["simulated"] = simulated(1_024, 2**18, 1_000)
    print(json.dumps(found["simulated"], ensure_ascii=False), flush=True)
    sizes = [(10**k, r) for k in (6, 7, 8, 9) for r in (1, 8, 64, 1_024)]
    found["model"] = {f"{d:.0e} on {r}": model(found["units"], d, r) for d, r in sizes}
    print(json.dumps(found["model"], indent=1), flush=True)
    if not arguments.skip_wall_times:
        found["wall times"] = wall_times()
        print(json.dumps(found["wall times"], ensure_ascii=False), flush=True)
    (HERE / "processes.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
