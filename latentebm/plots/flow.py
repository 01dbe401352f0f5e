"""Figures of one-dimensional energies and of chains that flow to their target, still and moving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from latentebm.checks import check_int, fail
from latentebm.files import write_atomic
from latentebm.plots.lettering import fonts, verbatim
from latentebm.plots.style import AFTER, BEFORE, COLOURS, Place, new_figure

__all__ = ["animate_density", "plot_density_flow", "plot_energy_curve", "plot_particle_flow"]


@fonts()
def plot_energy_curve(
    x: Tensor, energies: dict[str, Tensor], exact: Tensor, title: str = "", *, ax: Place = None
) -> Figure:
    """Learned energies by name, at most eight, beside the exact −log p of the data, each with its minimum at zero.

    All are (N,) in nats, at places x (N,) on a line.
    """
    figure, (panel,) = new_figure(5.6, 3.8, title, ax=ax)
    places, least = x.cpu().numpy(), float(exact.min())
    panel.plot(places, (exact - least).cpu().numpy(), color="black", lw=2.5, ls="--", label="data, −log p")
    for name, energy, colour in zip(verbatim(list(energies)), energies.values(), COLOURS, strict=False):
        panel.plot(places, (energy - energy.min()).detach().cpu().numpy(), color=colour, lw=1.8, label=name)
    panel.set_ylim(-0.3, min(float((exact - least).max()), 15.0) * 1.05)
    panel.set(xlabel="x", ylabel="energy above minimum (nats)")
    panel.legend(fontsize=8)
    return figure


@fonts()
def plot_particle_flow(trace: Tensor, title: str = "", *, shown: int = 60, ax: Place = None) -> Figure:
    """Paths of one-dimensional chains, (T, chains, 1) or (T, chains), over their steps."""
    paths = _line(trace)
    figure, (panel,) = new_figure(5.6, 3.8, title, ax=ax)
    panel.plot(paths[:, :shown], color=AFTER, lw=0.7, alpha=0.45)
    panel.set(xlabel="chain step", ylabel="x")
    return figure


@fonts()
def plot_density_flow(
    trace: Tensor, data: Tensor, title: str = "", *, frames: int = 5, bins: int = 50, ax: Place = None
) -> Figure:
    """Histograms of all chains, (T, chains, 1) or (T, chains), at evenly spaced steps, over that of the data (N,).

    Example:
        >>> import torch
        >>> figure = plot_density_flow(torch.randn(9, 50, 1), torch.randn(50), "at rest", frames=3)
        >>> [ax.get_ylabel() for ax in figure.axes]
        ['step 0', 'step 4', 'step 8']
    """
    paths, points = _line(trace), data.flatten().cpu().numpy()
    steps = np.unique(np.linspace(0, len(paths) - 1, check_int("frames", frames)).round().astype(int))
    edges = np.histogram_bin_edges(np.append(paths, points), bins)
    figure, axes = new_figure(5.6, 1.1 * len(steps) + 0.8, title, len(steps), ax=ax, sharex=True, sharey=True)
    for panel, step in zip(axes, steps, strict=True):
        _histograms(panel, paths[step], points, edges)
        panel.set_ylabel(f"step {step}", fontsize=8)
        panel.set_yticks([])
    axes[0].legend(fontsize=8, loc="upper right")
    axes[-1].set_xlabel("x")
    return figure


@fonts()
def animate_density(
    trace: Tensor, data: Tensor, path: Path | str, *, fps: int = 8, bins: int = 50, ax: Place = None
) -> Path:
    """Write the histogram of all chains, (T, chains, 1) or (T, chains), over that of the data, as a GIF.

    It has one frame per step, `fps` per second, and is written whole or not at all; with `ax`, the film is of the whole
    figure they belong to.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.mkdtemp()
        >>> animate_density(torch.randn(3, 50), torch.randn(50), folder + "/flow.gif").read_bytes()[:3]
        b'GIF'
    """
    paths, points = _line(trace), data.flatten().cpu().numpy()
    edges = np.histogram_bin_edges(np.append(paths, points), bins)
    tallest = 1.15 * max(np.histogram(v, edges, density=True)[0].max() for v in (*paths, points))
    figure, (panel,) = new_figure(4.8, 3.0, ax=ax)

    def draw(step: int) -> list[Axes]:
        panel.clear()
        _histograms(panel, paths[step], points, edges)
        panel.set(ylim=(0, tallest), xlabel="x", ylabel="density", title=f"step {step} of {len(paths) - 1}")
        panel.legend(fontsize=8, loc="upper right")
        return [panel]

    film = FuncAnimation(figure, draw, frames=len(paths), blit=False)
    return write_atomic(path, lambda p: film.save(str(p), writer=PillowWriter(fps=fps)))


def _histograms(ax: Axes, values: np.ndarray, data: np.ndarray, edges: np.ndarray) -> None:
    ax.hist(data, edges.tolist(), density=True, color=BEFORE, alpha=0.6, label="data")
    ax.hist(values, edges.tolist(), density=True, histtype="step", color=AFTER, lw=1.5, label="chains")


def _line(trace: Tensor) -> np.ndarray:
    if trace.ndim not in (2, 3) or (trace.ndim == 3 and trace.shape[2] != 1):
        raise fail("trace", "shape (T, chains, 1) or (T, chains)", tuple(trace.shape), "pass one-dimensional chains")
    return np.asarray(trace.detach().cpu().reshape(trace.shape[0], trace.shape[1]).numpy())
