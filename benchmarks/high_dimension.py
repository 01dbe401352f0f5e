"""Acceptance and effective draws per step of kernels on N(0, I) tilted in one coordinate, of 16 to 16,384."""

from __future__ import annotations

import argparse
import math

import torch

from latentebm.sampling import MALA, PCN, PCNL, EllipticalSlice, ess_bulk, run_chains

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


def main() -> None:
    """Print the table of docs/sampling.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--chains", type=int, default=32)
    args = parser.parse_args()
    for name, kernel in KERNELS.items():
        found = [pace(kernel, dim, args.steps, args.chains) for dim in (16, 1_024, 16_384)]
        print(f"| {name} | " + " | ".join(f"{a:.3f} | {e:.3f}" for a, e in found) + " |", flush=True)


if __name__ == "__main__":
    main()
