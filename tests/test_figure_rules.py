"""What holds for every figure: no title needed, axes taken, signs drawn, text readable, no panel empty."""

from __future__ import annotations

import functools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.text import Text

from latentebm import plots
from latentebm.plots.lettering import drawable, fonts, verbatim
from latentebm.plots.style import new_figure
from latentebm.studies.strength_curve import plot_strength
from tests.sampling_targets import gen

NAMES = ["数字", "_hidden", "$x^$", "tab\there and a name that is far too long", "\x1b[31m", "plain"]
CLASSES = list(range(len(NAMES)))
Z = torch.randn(3000, 2, generator=gen())
LABELS = torch.arange(3000) % len(NAMES)
PLANE = plots.Plane(Z)
SHARES = np.array([0.4, 0.3, 0.2, 0.06, 0.03, 0.01])
ENDS = [(p * 0.8, p * 1.2) for p in SHARES]
STUDY = pd.DataFrame({"size": [1, 1, 2, 2], "tv": [0.3, 0.2, 0.1, 0.2], "ess": [0.5, 0.4, 0.3, 0.2]})
METHODS = pd.DataFrame({"tv": [0.1, 0.2], "ess": [0.3, None]}, index=NAMES[:2])
STRENGTH = STUDY.rename(columns={"size": "strength"}).assign(frechet=1.0, coverage=0.5)
TABLE = pd.DataFrame({name: [1.0, 2.0, 3.0, 4.0] for name in NAMES[:3]})
MASK = pd.DataFrame({name: [True, True, k != 0, False] for k, name in enumerate(NAMES[:3])})
TARGET = {"name": NAMES[0], "wanted": 0.5}
TARGET |= {stage: {"name": NAMES[0], "value": v, "low": v - 0.1, "high": v + 0.1, "wanted": 0.5}
           for stage, v in (("untilted", 0.2), ("tilted", 0.5))}  # fmt: skip
ENERGIES = {name: k * Z[:, 0] for k, name in enumerate(NAMES[:4], 1)}
LINE = torch.linspace(-3, 3, 400)
DRAWN = {
    "calibration": (plots.plot_calibration, LINE, {"a": -LINE, "_b": -LINE / 2}, {"a": 0.1}),
    "class_counts": (plots.plot_class_counts, [9, 8, 7, 3, 2, 1], [2] * 6, NAMES),
    "clusters": (plots.plot_clusters, torch.rand(7, 1, 4, 4), [0.3, *[0.1] * 6], [0.1, *[0.15] * 6]),
    "density_flow": (plots.plot_density_flow, torch.randn(9, 50, 1), torch.randn(50)),
    "encoders": (plots.plot_encoders, dict.fromkeys(NAMES[:3], Z), LABELS, CLASSES, NAMES),
    "energies": (plots.plot_energies, PLANE, Z, ENERGIES),
    "energy": (plots.plot_energy, PLANE, Z, Z[:, 0] / 20, Z[:50]),
    "energy_curve": (plots.plot_energy_curve, LINE, {"_learned": LINE**2, "数": LINE**4}, LINE**2 / 2),
    "image_grid": (plots.plot_image_grid, torch.rand(20, 1, 6, 6)),
    "latents": (plots.plot_latents, PLANE, Z, LABELS, CLASSES, NAMES),
    "imputed": (plots.plot_imputed, TABLE, MASK),
    "methods": (plots.plot_methods, METHODS, {"tv": "TV", "ess": "ESS"}),
    "missingness": (plots.plot_missingness, MASK),
    "overlay": (plots.plot_overlay, PLANE, Z[:500], Z[500:900], Z[900:]),
    "particle_flow": (plots.plot_particle_flow, torch.randn(9, 50)),
    "paths": (plots.plot_paths, PLANE, torch.randn(9, 3, 2)),
    "share_intervals": (plots.plot_share_intervals, *(dict.fromkeys("_数", v) for v in (SHARES, ENDS)), SHARES, NAMES),
    "shares": (plots.plot_shares, SHARES, SHARES[::-1], SHARES, NAMES),
    "strength": (plot_strength, STRENGTH),
    "study": (functools.partial(plots.plot_study, before={"tv": 0.4}), STUDY, "size", {"tv": "TV", "ess": "ESS"}),
    "targets": (plots.plot_targets, [TARGET]),
    "training": (plots.plot_training, {"a": [2.0, 1.0], "none": []}),
}  # fmt: skip
SMALLEST, HALF = 8.0, 480  # pixels: of a letter, and of half the report's page


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def drawn(figure):
    """Draw it, where a sign without a glyph is a warning and so an error."""
    figure.draw_without_rendering()
    return figure


def test_every_public_figure_is_here():
    named = {name.removeprefix("plot_") for name in plots.__all__ if name.startswith("plot_")}
    assert named <= set(DRAWN)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_every_figure_is_readable_and_full(name):
    draw, *given = DRAWN[name]
    figure = drawn(draw(*given))
    shown = [ax for ax in figure.axes if ax.axison or ax.images]
    assert all(ax.has_data() for ax in shown)
    assert all(text.get_fontsize() / 72 * HALF / figure.get_figwidth() >= SMALLEST for text in texts(figure))
    assert not [text.get_text() for text in texts(figure) if re.fullmatch(r"[−-]0(\.0*)?", text.get_text())]


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_every_figure_goes_into_axes_that_are_given(name):
    draw, *given = DRAWN[name]
    own = Figure(figsize=(9, 4), layout="constrained")
    left, right = own.subplots(1, 2)
    right.plot([0, 1])
    assert draw(*given, ax=left) is own
    (line,) = right.lines
    assert line.get_xdata().tolist() == [0, 1]
    assert left.has_data() or (not left.axison and len(own.axes) > 2)


def test_several_panels_take_as_many_axes_or_are_refused():
    own = Figure()
    axes = own.subplots(1, 2)
    plots.plot_training({"a": [1.0], "b": [1.0]}, ax=axes)
    assert [ax.get_ylabel() for ax in axes] == ["a", "b"]
    with pytest.raises(ValueError, match="ax: expected axes for 2 panels, got 3"):
        plots.plot_training({"a": [1.0], "b": [1.0]}, ax=Figure().subplots(1, 3))


def test_legends_name_every_class():
    legend = plots.plot_latents(PLANE, Z, LABELS, CLASSES, NAMES).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == verbatim(NAMES)
    assert len({text.get_text() for text in legend.get_texts()}) == len(NAMES)


def test_signs_of_a_fallback_font_are_drawn_and_others_are_numbers(tmp_path):
    rare = chr(0x6570)
    if drawable(rare) != rare:
        assert drawable(f"a{rare}\n") == r"a\u6570" + "\n"
    font = TTFont(findfont("DejaVu Sans"))
    for table in font["cmap"].tables:
        table.cmap = {0x6570: "A"}
    for record in font["name"].names:
        record.string = "Noto Sans CJK SC"
    font.save(tmp_path / "cjk.ttf")
    kept = list(fontManager.ttflist)
    try:
        fontManager.addfont(tmp_path / "cjk.ttf")
        assert drawable(rare) == rare
        drawn(plots.plot_shares(SHARES, SHARES, SHARES, [rare] * 6, rare))
        with fonts():
            figure, _ = new_figure(2, 2, rare)
        assert "Noto Sans CJK SC" in figure.axes[0].title.get_fontfamily()
    finally:
        fontManager.ttflist[:] = kept


def test_a_colour_bar_has_round_numbers_each_once_and_no_zero_with_a_sign():
    bar = drawn(plots.plot_energy(PLANE, Z, Z[:, 0] / 20, Z[:5])).axes[1]
    labels = [text.get_text() for text in texts(bar.yaxis)]
    assert len(labels) == len(set(labels)) > 4
    assert not [text for text in labels if re.fullmatch(r"[−-]0\.0*", text)]
