"""A fitted energy against the log-ratio that it should have learned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from latentebm.plots.style import AFTER, new_figure, tidy_legend

__all__ = ["plot_calibration"]

SPAN = (0.01, 0.99)  # quantiles of the log-ratio that are shown
GROUPS = 24


def plot_calibration(
    log_ratio: Tensor, energies: Mapping[str, Tensor], penalties: Mapping[str, float], title: str
) -> Figure:
    r"""Fitted log-weights −E against the true log-ratio, with the optimum of the penalised Jensen objective.

    .. math:: -E^*(z) = \frac{1}{2\lambda} \tanh\Big(\tfrac12 \log\frac{q_{ref}(z)}{p_0(z)}\Big)

    Arguments:
        log_ratio: log q_ref/p_0 at some points, (N,), nats.
        energies: fitted energies there, (N,), nats, by name; one panel for each.
        penalties: the λ of those fitted by the Jensen objective, whose optimum and bounds ±1/(2λ) are drawn.

    Example:
        >>> import torch
        >>> r = torch.linspace(-2, 2, 99)
        >>> figure = plot_calibration(r, {"λ = 1/4": -2 * torch.tanh(r / 2)}, {"λ = 1/4": 0.25}, "on its curve")
        >>> figure.axes[0].get_title()
        'λ = 1/4'
    """
    figure, axes = new_figure(0.6 + 2.9 * len(energies), 3.4, columns=len(energies), sharex=True, sharey=True)
    r = log_ratio.cpu().numpy()
    low, high = np.quantile(r, SPAN)
    line = np.linspace(low, high, 200)
    for ax, (name, energy) in zip(axes, energies.items(), strict=True):
        ax.plot(line, line, color="black", ls="--", lw=1.2, label="true log-ratio")
        if name in penalties:
            bound = 1 / (2 * penalties[name])
            ax.plot(line, bound * np.tanh(line / 2), color="#D55E00", lw=1.3, zorder=3, label="Jensen optimum")
            ax.axhspan(-bound, bound, color="#D55E00", alpha=0.07, lw=0)
        _quantiles(ax, r, -energy.detach().cpu().numpy(), np.linspace(low, high, GROUPS + 1))
        ax.set_xlabel(r"true $\log q_{ref}/p_0$ (nats)", fontsize=9)
        ax.set_title(name, fontsize=9)
    axes[0].set_ylabel("fitted log-weight −E (nats)")
    tidy_legend(axes[0], loc="lower right", markerscale=1)
    figure.suptitle(title, fontsize=10)
    return figure


def _quantiles(ax: Axes, r: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> None:
    """Median of the weights in each group of log-ratios, and a band from the 10th to the 90th percentile."""
    group = np.digitize(r, edges) - 1
    kept = [g for g in range(len(edges) - 1) if (group == g).sum() >= 5]
    lower, middle, upper = np.array([np.quantile(weight[group == g], [0.1, 0.5, 0.9]) for g in kept]).reshape(-1, 3).T
    centres = (edges[:-1] + edges[1:])[kept] / 2
    ax.fill_between(centres, lower, upper, color=AFTER, alpha=0.25, lw=0)
    ax.plot(centres, middle, color=AFTER, lw=2.4, label="fitted, median and 80 %")
