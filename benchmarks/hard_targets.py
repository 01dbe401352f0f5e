"""Kernels in 16 to 16,384 dimensions, and samplers of a tilt whose importance weights collapse."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from sampling import ESS_SAMPLERS, effective_draws, show

from latentebm.files import write_json
from latentebm.sampling import (
    ISIR,
    MALA,
    PCN,
    PCNL,
    SNIS,
    ULA,
    Auto,
    EllipticalSlice,
    Langevin,
    ParallelTempering,
    RandomWalk,
    Rejection,
    TemperedSMC,
    ess_bulk,
    run_chains,
)

KERNELS = {
    "pCN, β = .5": PCN(0.5),
    "pCNL, δ = .5": PCNL(0.5),
    "elliptical slice": EllipticalSlice(),
    "MALA, η = .2": MALA(0.2),
}


class Feature:
    """N(0, I) tilted by E = 2 (u₀ − 2)²: u₀ ~ N(1.6, .2), the other coordinates as they were."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def sample_base(self, n, *, generator):
        return torch.randn(n, self.dim, generator=generator)

    def log_base(self, u):
        return -0.5 * (u.square().sum(1) + self.dim * math.log(2 * math.pi))

    def energy(self, u):
        return 2 * (u[:, 0] - 2).square()

    def potential(self, u):
        return self.energy(u) - self.log_base(u)

    def decode(self, u):
        return u


def pace(kernel, dim, steps, chains):
    """Acceptance, and bulk effective draws of the tilted coordinate per step and chain."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(chains, dim, generator=g)
    x[:, 0] = 1.6 + 0.2**0.5 * x[:, 0]
    tilt, path, accepted = Feature(dim), [], 0.0
    for _ in range(steps):  # one by one: paths of all coordinates would not fit
        run = run_chains(tilt, x, kernel, 1, generator=g, compile=False)
        x = run.state.position
        path.append(x[:, :1].clone())
        accepted += run.info.acceptance
    return accepted / steps, ess_bulk(torch.stack(path)).item() / (steps * chains)


class Stretched(Feature):
    """.3 N(−4.05, .5²) + .7 N(4.05, .5²) as a tilt of N(0, 1): relative ESS 9.7e-5, log Z 0, P(u > 0) = .7."""

    def __init__(self) -> None:
        super().__init__(1)
        self.evaluations = 0

    def energy(self, u):
        self.evaluations += len(u)
        parts = [math.log(w / 0.5) - 2 * (u[:, 0] - m).square() for w, m in ((0.3, -4.05), (0.7, 4.05))]
        return -torch.logaddexp(*parts) - 0.5 * u[:, 0].square()


def dimension(steps=400, chains=32):
    """Print acceptance and effective draws per step in 16, 1,024 and 16,384 dimensions."""
    for name, kernel in KERNELS.items():
        found = [pace(kernel, dim, steps, chains) for dim in (16, 1_024, 16_384)]
        print(f"| {name} | " + " | ".join(f"{a:.3f} | {e:.3f}" for a, e in found) + " |", flush=True)


def collapse(n=1_000):
    """Print errors of the mode share and of log Z over many seeds, and energies asked for per effective draw."""
    mixed = {"tempered SMC": (TemperedSMC(), 40), "parallel tempering": (ParallelTempering(trace=0), 8)}
    mixed |= {"MALA": (Langevin(trace=0), 8), "SNIS, 200,000": (SNIS(pool=200_000), 40)}
    for name, (sampler, seeds) in mixed.items():
        tilt, share, log_z = Stretched(), [], []
        for seed in range(seeds):
            draws = sampler.draw(tilt, n, generator=torch.Generator().manual_seed(seed))
            share.append((draws.latent > 0).double().mean().item() - 0.7)
            log_z.append(draws.diagnostics.get("log_z", math.nan))
        share, log_z = torch.tensor(share), torch.tensor(log_z)
        effective = 0.7 * 0.3 / share.square().mean().item()
        print(
            f"| {name} | {share.square().mean().sqrt():.3f} | {(share.abs() < 0.02).float().mean():.0%} | "
            f"{log_z.square().mean().sqrt():.3f} | {(log_z.abs() < 0.05).float().mean():.0%} | "
            f"{tilt.evaluations / seeds / effective:,.0f} |",
            flush=True,
        )


def wide():
    """Samplers by name for codes of many numbers; HMC and NUTS as in two dimensions."""
    chains = {"ula": ULA(0.05), "mala": MALA(0.2), "random walk": RandomWalk(0.3), "pcn": PCN(0.5), "pcnl": PCNL(0.5)}
    chains["elliptical slice"] = EllipticalSlice()
    found = {"snis": SNIS(pool=20_000), "rejection": Rejection(), "isir": ISIR()}
    found |= {name: Langevin(kernel=kernel, n_steps=100, trace=0) for name, kernel in chains.items()}
    found["tempered smc"] = TemperedSMC(particles=500, kernel=PCNL(0.5))
    found["parallel tempering"] = ParallelTempering(trace=0)
    return found | {name: ESS_SAMPLERS[name][0] for name in ("hmc", "nuts")} | {"auto": Auto()}


def rate(n=500, out=Path("benchmarks/hard_targets.json")):
    """Print and write effective draws per processor second in 100 and 16,384 dimensions, and how far off u₀ is."""
    rows = []
    for dim in (100, 16_384):
        for name, sampler in wide().items():
            start = time.process_time()
            try:
                count = 50 if name == "parallel tempering" and dim > 1_000 else n  # each from a ladder of its own
                draws = sampler.draw(Feature(dim), count, generator=torch.Generator().manual_seed(1))
            except ValueError as refusal:
                rows.append({"dim": dim, "sampler": name, "refused": str(refusal)})
                continue
            seconds, effective = time.process_time() - start, effective_draws(draws)
            u = draws.latent[:, 0]
            row = {"dim": dim, "sampler": name, "draws": len(draws), "seconds": seconds, "effective": effective}
            row |= {"per_s": effective / seconds, "bias": (u.mean().item() - 1.6) / 0.2**0.5}
            row |= {"spread": u.std().item() / 0.2**0.5, "reliable": bool(draws.diagnostics.get("reliable", True))}
            rows.append(row)
            show([row])
            write_json(out, {"rate": rows, "torch": torch.__version__, "threads": torch.get_num_threads()})


PARTS = {"dimension": dimension, "collapse": collapse, "rate": rate}


def main() -> None:
    """Print the tables of docs/sampling.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
