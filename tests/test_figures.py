"""Figures of tilts and methods: what is drawn is what was passed."""

import pandas as pd
import pytest
import torch

from latentebm import plots
from tests.sampling_targets import gen

POINTS = torch.randn(20_000, 2, generator=gen())


def heights(ax) -> dict[float, float]:
    """Mean first coordinate of the outlines of each filled level of a map."""
    (drawn,) = [c for c in ax.collections if hasattr(c, "levels")]
    middles = (drawn.levels[:-1] + drawn.levels[1:]) / 2
    return {float(m): p.vertices[:, 0].mean() for m, p in zip(middles, drawn.get_paths()[1:-1], strict=True)}


def test_a_map_of_a_linear_energy_is_that_energy():
    figure = plots.plot_energy(plots.Plane(POINTS), POINTS, POINTS[:, 0], POINTS[:5], "t")
    found = heights(figure.axes[0])
    assert list(found.values()) == pytest.approx(list(found), abs=0.15)


def test_maps_share_their_levels_and_leave_no_axes_over():
    plane, x = plots.Plane(POINTS), POINTS[:, 0]
    figure = plots.plot_energies(plane, POINTS, {"a": x, "b": 2 * x + 5, "c": -x, "d": x}, "t", columns=3)
    maps = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in maps] == ["a", "b", "c", "d"]
    assert len({tuple(c.levels) for ax in maps for c in ax.collections if hasattr(c, "levels")}) == 1
    assert [ax.axison for ax in figure.axes[4:6]] == [False, False]


def test_an_exact_jensen_fit_lies_on_its_curve():
    r = torch.linspace(-3, 3, 4001)
    energy = -torch.tanh(r / 2) / (2 * 0.1)
    (ax,) = plots.plot_calibration(r, {"a": energy}, {"a": 0.1}, "t").axes
    true, curve, median = ax.lines
    assert true.get_xdata() == pytest.approx(true.get_ydata())
    theory = torch.from_numpy(median.get_xdata()).mul(0.5).tanh() / 0.2
    assert median.get_ydata() == pytest.approx(theory.numpy(), abs=0.05)
    assert abs(curve.get_ydata()).max() < 5


def test_methods_and_intervals_stand_where_they_should():
    table = pd.DataFrame(
        {"tv": [0.2, 0.1], "low": [0.15, 0.0], "high": [0.3, 0.2], "ess": [None, 40.0]}, index=["p", "q"]
    )
    first, second = plots.plot_methods(table, {"tv": "TV", "ess": "ESS"}, "t", intervals={"tv": ("low", "high")}).axes
    segments = first.collections[0].get_segments()
    assert [s[:, 0].tolist() for s in segments] == [pytest.approx([0.15, 0.3]), pytest.approx([0.0, 0.2])]
    assert second.lines[0].get_xdata()[1] == 40
    figure = plots.plot_share_intervals({"p": [0.7, 0.3]}, {"p": [(0.6, 0.75), (0.2, 0.4)]}, [0.5, 0.5], "ab", "t")
    bars = figure.axes[0].collections[0].get_segments()
    assert [s[:, 1].tolist() for s in bars] == [pytest.approx([60, 75]), pytest.approx([20, 40])]


@pytest.mark.parametrize(("curve", "where"), [((0.1, 0.3), "left"), ((0.3, 0.1), "right")])
def test_the_untilted_line_is_named_where_the_curve_is_not(curve, where):
    table = pd.DataFrame({"size": [1, 2], "tv": curve})
    figure = plots.plot_study(table, "size", {"tv": "TV"}, before={"tv": 0.3}, title="t", x_label="s", log=["tv"])
    (label,) = figure.axes[0].texts
    assert label.get_ha() == where
    assert figure.axes[0].get_yscale() == "log"
