"""Time, memory and efficiency of the samplers, peers side by side; prints tables and writes JSON.

Run from the repository: ``python benchmarks/sampling.py [--parts speed linear memory ess] [--threads 2] [--out FILE]``
Each part adds its own entry to the file, so that they can run apart.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentebm.files import write_json
from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PCN,
    PCNL,
    PMC,
    SGLD,
    SNIS,
    ULA,
    Auto,
    Draws,
    EllipticalSlice,
    FusedMLP,
    ImproperSGLD,
    Langevin,
    ParallelTempering,
    RandomWalk,
    Rejection,
    Target,
    TemperedSMC,
    ess_bulk,
    run_chains,
)

SPEED = ((2, 64), (2, 1_000), (10, 10_000))


def perceptron(dim: int) -> nn.Sequential:
    """Energy d→256→128→1 with SiLU."""
    torch.manual_seed(0)
    layers = [nn.Linear(dim, 256), nn.SiLU(), nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 1), nn.Flatten(0)]
    return nn.Sequential(*layers)


def plain_loop(net: nn.Module, x: torch.Tensor, steps: int) -> torch.Tensor:
    """ULA as one writes it by hand with autograd."""
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(net(x).sum(), x)
        x = x - 0.01 * grad + math.sqrt(0.02) * torch.randn_like(x)
    return x.detach()


def torchebm_loop(net: nn.Module) -> Callable[[torch.Tensor, int], Any]:
    """LangevinDynamics of torchebm on the same energy."""
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Energy(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    sampler = LangevinDynamics(Energy(), step_size=0.01)
    return lambda x, steps: sampler.sample(x=x, n_steps=steps)


def pyro_hmc(net: nn.Module) -> Callable[[torch.Tensor, int], Any]:
    """Pyro's HMC with one leapfrog step, which is MALA, on all chains as one state of dimension N·D."""
    from pyro.infer import MCMC
    from pyro.infer import mcmc as kernels

    def chain(x: torch.Tensor, steps: int) -> Any:
        kernel = kernels.HMC(
            potential_fn=lambda site: net(site["u"]).sum(),
            step_size=0.14,
            num_steps=1,
            adapt_step_size=False,
            adapt_mass_matrix=False,
        )
        run = MCMC(kernel, steps, 0, initial_params={"u": x}, disable_progbar=True)
        run.run()
        return run

    return chain


def gemm_limit(dim: int, chains: int) -> float:
    """Microseconds for the flops of one forward and input-gradient pass at the machine's best matrix rate."""
    a = torch.randn(2048, 2048)
    a @ a
    rate = max(2 * 2048**3 / timed(lambda: a @ a) for _ in range(8))
    return 1e6 * 4 * chains * (dim * 256 + 256 * 128 + 128) / rate


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def contenders(dim: int, chains: int, steps: int) -> dict[str, Callable[[], Any]]:
    """Calls that take `steps` Langevin steps of one energy."""
    net, x, g = perceptron(dim), torch.randn(chains, dim), torch.Generator().manual_seed(0)
    fused, peer, hmc = FusedMLP(net), torchebm_loop(net), pyro_hmc(net)

    def ours(potential: Any, compile: bool = False) -> Callable[[], Any]:  # noqa: A002
        return lambda: run_chains(potential, x, ULA(0.01), steps, generator=g, compile=compile)

    return {
        "plain loop": lambda: plain_loop(net, x, steps),
        "torchebm": lambda: peer(x, steps),
        "pyro hmc, 1 leapfrog": lambda: hmc(x, steps),
        "ours": ours(net),
        "ours, fused": ours(fused),
        "ours, fused + compile": ours(fused, compile=True),
    }


class Contender:
    """One contender in a process of its own, so that none inherits the memory that another has warmed."""

    def __init__(self, *job: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, torch.get_num_threads(), *job), daemon=True)
        self.process.start()

    def seconds(self) -> float:
        """Time of one call there."""
        self.pipe.send(True)
        return self.pipe.recv()

    def stop(self) -> None:
        self.pipe.send(False)
        self.process.join()


def _serve(pipe: Any, threads: int, name: str, dim: int, chains: int, steps: int) -> None:
    torch.set_num_threads(threads)
    call = contenders(dim, chains, steps)[name]
    while pipe.recv():
        pipe.send(timed(call))


def speed(rounds: int = 9) -> list[dict[str, Any]]:
    """Microseconds per step; contenders take turns, so that a busy machine slows all alike, and medians count."""
    rows = []
    for dim, chains in SPEED:
        # A chain starts with one evaluation more: let it weigh little.
        steps = {64: 800, 1_000: 160, 10_000: 32}[chains]
        calls = {name: Contender(name, dim, chains, steps) for name in contenders(dim, chains, steps)}
        first = {name: call.seconds() for name, call in calls.items()}
        print(f"{chains} chains, first calls: {first}", file=sys.stderr, flush=True)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(1e6 * call.seconds() / steps)
        for call in calls.values():
            call.stop()
        limit = gemm_limit(dim, chains)
        micro = {name: statistics.median(values) for name, values in times.items()}
        found = [
            {
                "chains": chains,
                "dim": dim,
                "contender": name,
                "us_per_step": value,
                "best_us_per_step": min(times[name]),
                "times_gemm_limit": value / limit,
                "faster_than_torchebm": micro["torchebm"] / value,
                "first_call_s": first[name],
            }
            for name, value in micro.items()
        ]
        show(found)
        rows += found
    return rows


def linear() -> dict[str, Any]:
    """Time of 10 steps of 10³ … 10⁶ chains in 10 dimensions, and the slope of log time on log chains."""
    fused, g = FusedMLP(perceptron(10)), torch.Generator().manual_seed(0)
    rows = []
    for chains in (1_000, 10_000, 100_000, 1_000_000):
        x = torch.randn(chains, 10)
        repeats = 5 if chains < 100_000 else 1
        seconds = min(
            timed(lambda x=x: run_chains(fused, x, ULA(0.01), 8, generator=g, compile=False)) for _ in range(repeats)
        )
        rows.append({"chains": chains, "us_per_chain_step": 1e6 * seconds / chains / 8})
    logs = [(math.log(r["chains"]), math.log(r["us_per_chain_step"] * r["chains"])) for r in rows]
    slope = statistics.linear_regression(*zip(*logs, strict=True)).slope
    return {"rows": rows, "slope": slope}


class _Gaussian(Target):
    """A tilt by a perceptron of the package's size, without a decoder."""

    def __init__(self, dim: int) -> None:
        self.dim, self.net = dim, perceptron(dim)

    def sample_base(self, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(n, self.dim, generator=generator)

    def log_base(self, u: torch.Tensor) -> torch.Tensor:
        return -0.5 * u.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)

    def energy(self, u: torch.Tensor) -> torch.Tensor:
        return self.net(u)

    def decode(self, u: torch.Tensor) -> torch.Tensor:
        return u


def _snis_job() -> None:
    SNIS(pool=10_000_000).draw(_Gaussian(10), 10_000, generator=torch.Generator().manual_seed(0))


def _chains_job() -> None:
    x = torch.randn(1_000_000, 10)
    g = torch.Generator().manual_seed(0)
    run_chains(FusedMLP(perceptron(10)), x, ULA(0.01), 100, generator=g, compile=False)


def _peak_growth(job: Callable[[], None], threads: int, queue: Any) -> None:
    """Peak resident memory of a job in a fresh process, above what it held after a first matrix product."""
    torch.set_num_threads(threads)
    torch.randn(64, 64) @ torch.randn(64, 64)
    before = _peak_mb()
    seconds = timed(job)
    queue.put((_peak_mb() - before, seconds))


def _peak_mb() -> float:
    """This process's peak resident memory; the kernel's other count is inherited from the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def memory() -> dict[str, Any]:
    """Peak growth in MB and seconds of 10⁷ SNIS base draws and of 10⁶ chains × 10 dims × 100 steps."""
    context, found = multiprocessing.get_context("spawn"), {}
    for name, job in (("snis_1e7", _snis_job), ("chains_1e6_x10_x100", _chains_job)):
        queue = context.Queue()
        process = context.Process(target=_peak_growth, args=(job, torch.get_num_threads(), queue))
        process.start()
        growth, seconds = queue.get()
        process.join()
        found[name] = {"peak_growth_mb": growth, "seconds": seconds}
        print(name, found[name], flush=True)
    return found


class PersistentCalls:
    """PMC as it is used: the same chains a few steps per call; the calls after the first twenty are the draws."""

    def draw(self, tilt: Any, n: int, *, generator: torch.Generator) -> Draws:
        pmc = PMC(MALA(0.3), n_steps=20, size=n)
        path = []
        for _ in range(40):
            info = pmc.draw(tilt, n, generator=generator).diagnostics
            path.append(pmc.buffer.x.clone())
        trace = torch.stack(path[20:])
        with torch.no_grad():
            return Draws(torch.empty(0), trace.flatten(0, 1), -tilt.energy(trace.flatten(0, 1)), info, trace)


ESS_SAMPLERS: dict[str, tuple[Any, int]] = {
    "snis": (SNIS(pool=200_000), 10_000),
    "rejection": (Rejection(), 10_000),
    "isir": (ISIR(), 10_000),
    "ula": (Langevin(kernel=ULA(0.05), n_steps=200), 2_000),
    "sgld": (Langevin(kernel=SGLD(a=1.0, b=10.0, gamma=0.55), n_steps=200), 2_000),
    "improper sgld": (Langevin(kernel=ImproperSGLD(alpha=0.1, sigma=math.sqrt(0.1)), n_steps=200), 2_000),
    "mala": (Langevin(n_steps=200), 2_000),
    "random walk": (Langevin(kernel=RandomWalk(1.0), n_steps=600, target=0.3), 2_000),
    "pmc": (PersistentCalls(), 2_000),
    "hmc": (HMC(chains=2, warm_up=200), 500),
    "nuts": (NUTS(chains=2, warm_up=200), 500),
    "pcn": (Langevin(kernel=PCN(0.5), n_steps=200), 2_000),
    "pcnl": (Langevin(kernel=PCNL(0.5), n_steps=200), 2_000),
    "elliptical slice": (Langevin(kernel=EllipticalSlice(), n_steps=200), 2_000),
    "tempered smc": (TemperedSMC(particles=2_000), 2_000),
    "parallel tempering": (ParallelTempering(), 2_000),
    "auto": (Auto(), 10_000),
}


def measured(dim: int, name: str, sampler: Any, n: int, tilt: Any, exact: torch.Tensor) -> dict[str, Any]:
    """One row of a table: draws of a sampler against exact log-weights."""
    start = time.perf_counter()
    draws = sampler.draw(tilt, n, generator=torch.Generator().manual_seed(1))
    seconds = time.perf_counter() - start
    effective = effective_draws(draws)
    return {
        "dim": dim,
        "sampler": name,
        "draws": len(draws),
        "seconds": seconds,
        "effective": effective,
        "effective_per_s": effective / seconds,
        "mean_energy": -draws.log_weight.mean().item(),
        # In standard deviations of the energy: chance alone gives 1/√effective.
        "bias": ((exact.mean() - draws.log_weight.mean()) / exact.std()).item(),
    }


def ess_table(epochs: int) -> list[dict[str, Any]]:
    """Effective draws per second, and bias, of every sampler on fitted MNIST tilts of 2 and 10 dimensions."""
    from latentebm import Debiaser, biased_split, load_images

    images, rows = load_images("mnist"), []
    shares, split = [0.12, 0.33, 0.28, 0.20, 0.07], torch.Generator().manual_seed(0)
    biased, reference = biased_split(images.labels, range(5), shares, generator=split)
    for dim in (2, 10):
        model = Debiaser(latent_dim=dim, prior="normal", epochs=epochs, device="cpu")
        tilt = model.fit(images[biased].images, images[reference].images).tilt()
        exact = SNIS(pool=4_000_000).draw(tilt, 400_000, generator=torch.Generator().manual_seed(2)).log_weight
        rows += [measured(dim, name, *pair, tilt, exact) for name, pair in ESS_SAMPLERS.items()]
    return rows


def effective_draws(draws: Any) -> float:
    """Independent draws that all draws given are worth.

    SNIS's are correlated through the noise of their common pool. Draws that are points of one path are worth the path's
    bulk ESS, least over coordinates, and tempered particles that of their least stage. Those of rejection and of chains
    that start apart and give one draw each are independent. A path whose draws repel each other may be worth more than
    their number; none is counted so.
    """
    n, found = len(draws), draws.diagnostics
    if found["sampler"] == "snis":
        pool = found["pool"] * found["ess"]
        return n * pool / (n + pool)
    if found["sampler"] in ("hmc", "nuts", "pmc"):
        return min(1.0, ess_bulk(draws.trace).min().item() / draws.trace[..., 0].numel()) * n
    return n * min(found.get("stage_ess", [1.0]))


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    names = list(rows[0])
    cells = [[f"{r[k]:.4g}" if isinstance(r[k], float) else str(r[k]) for k in names] for r in rows]
    widths = [max(len(n), *(len(c[i]) for c in cells)) for i, n in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(value.rjust(width) for value, width in zip(line, widths, strict=True)))


def main() -> None:
    """Run the parts asked for and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("speed", "linear", "memory", "ess")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/sampling.json"))
    parser.add_argument("--epochs", type=int, default=25, help="of the VAE under the fitted tilts")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for part in options.parts:
        print(f"\n{part}")
        result = {"speed": speed, "linear": linear, "memory": memory, "ess": lambda: ess_table(options.epochs)}[part]()
        show(result) if isinstance(result, list) else print(json.dumps(result, indent=2))
        # Read again before writing: parts may run side by side, each adding its own.
        found = json.loads(options.out.read_text()) if options.out.exists() else {}
        machine = {"threads": options.threads, "torch": torch.__version__, "python": sys.version.split()[0]}
        write_json(options.out, found | {part: result, f"{part}_machine": machine})


if __name__ == "__main__":
    main()
