"""Figures of one-dimensional chains: every frame there, data and chains told apart, bad shapes named."""

import pytest
import torch
from PIL import Image

from latentebm.plots import animate_density, plot_density_flow, plot_energy_curve, plot_particle_flow
from tests.sampling_targets import gen


def test_the_gif_has_one_frame_per_step(tmp_path):
    trace = torch.randn(4, 200, 1, generator=gen()) + 3 * torch.arange(4).view(4, 1, 1)
    with Image.open(animate_density(trace, torch.randn(200, generator=gen(1)), tmp_path / "a.gif")) as film:
        assert film.format == "GIF"
        assert film.n_frames == 4


def test_curves_start_at_zero_whatever_their_constant():
    x = torch.linspace(-2, 2, 21)
    lines = plot_energy_curve(x, {"learned": x**2 + 7}, x**2 / 2 - 3, "t").axes[0].lines
    assert [line.get_ydata().min() for line in lines] == pytest.approx([0, 0])


def test_flows_show_the_steps_asked_for():
    trace = torch.randn(11, 30, generator=gen())
    labels = [ax.get_ylabel() for ax in plot_density_flow(trace, torch.randn(30), "t", frames=3).axes]
    assert labels == ["step 0", "step 5", "step 10"]
    assert len(plot_particle_flow(trace, "t", shown=7).axes[0].lines) == 7
    with pytest.raises(ValueError, match="trace: expected shape"):
        plot_particle_flow(torch.zeros(3, 4, 2), "t")
