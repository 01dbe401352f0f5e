"""Draw the film of docs/training.md: chains on an energy fitted to N(5, 1), from uniform starts to the data's law."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from latentebm import MALA, MCMCRecipe, fit_ebm, run_chains
from latentebm.plots import animate_density

FILM = Path(__file__).parent / "figures" / "lmc-1d.gif"


def start(n: int, generator: torch.Generator) -> Tensor:
    """Where chains begin."""
    return 15 * torch.rand(n, 1, generator=generator)


def main() -> None:
    """Fit, run, draw."""
    rng = torch.Generator().manual_seed(0)
    data = 5 + torch.randn(2000, 1, generator=rng)
    torch.manual_seed(0)
    layers = [nn.Linear(1, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)]
    energy = nn.Sequential(*layers, nn.Flatten(0))
    recipe = MCMCRecipe(kernel=MALA(0.3), n_steps=15, epochs=30, batch_size=100, lr=5e-3, buffer_size=1000, average=0.0)
    fit_ebm(energy, data, recipe, base=start, generator=rng)
    first = start(2000, rng)
    run = run_chains(energy, first, MALA(0.3), 60, generator=rng, trace=2000)
    final = run.state.position
    print(f"mean {final.mean():.2f}, standard deviation {final.std():.2f}")
    animate_density(torch.cat([first[None], run.trace])[:31], data, FILM, fps=5)


if __name__ == "__main__":
    main()
