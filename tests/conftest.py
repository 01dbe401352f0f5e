"""Small worlds shared by the tests: bars instead of digits, so that a whole run takes seconds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latentebm.data.images import Images
from latentebm.evaluation.judges import fit_classifier
from latentebm.evaluation.panel import fit_panel
from latentebm.progress import silent
from latentebm.settings.fields import Settings
from latentebm.workflow.run import debias

FAST = {
    "width": 32,
    "epochs": 100,
    "tilt_steps": 150,
    "folds": 2,
    "pool": 20_000,
    "samples": 1000,
    "clusters": 8,
    "precision": "fp32",
}


def bars(n: int, seed: int) -> Images:
    """n images of 8 x 8: class 0 a bright left half, class 1 a bright upper half, class 2 a bright centre."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    images = rng.integers(0, 60, (n, 8, 8))
    images[labels == 0, :, :4] += 180
    images[labels == 1, :4, :] += 180
    images[labels == 2, 2:6, 2:6] += 180
    return Images(
        torch.from_numpy(images.astype(np.uint8)).unsqueeze(1), torch.from_numpy(labels), ("left", "upper", "centre")
    )


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def bars_npz(tmp_path_factory) -> Path:
    data, path = bars(1800, 0), tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, images=data.images[:, 0].numpy(), labels=data.labels.numpy())
    return path


@pytest.fixture(scope="session")
def fast_settings(bars_npz) -> dict:
    return {**FAST, "data": str(bars_npz), "proportions": ".55,.3,.15", "biased_fraction": 0.5}


@pytest.fixture(scope="session")
def quick_settings(fast_settings) -> dict:
    """Of runs whose model need not be good."""
    return {**fast_settings, "epochs": 60, "tilt_steps": 50}


@pytest.fixture(scope="session")
def run(fast_settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    return debias(Settings(**fast_settings, out=str(out)), track=silent).folder


@pytest.fixture(scope="session")
def mnist_run(tmp_path_factory) -> Path:
    """Run folder of the main job on real MNIST, shortened, over a normal prior, which every sampler takes."""
    out = tmp_path_factory.mktemp("mnist") / "run"
    short = {"epochs": 10, "tilt_steps": 400, "folds": 2, "pool": 200_000, "samples": 3000, "latent_dim": 2}
    short |= {"prior": "normal"}
    with pytest.MonkeyPatch.context() as patch:  # judges that look at fewer images
        once = lambda data, *, epochs, **more: fit_classifier(data, epochs=epochs // 2, **more)  # noqa: E731
        patch.setattr("latentebm.workflow.judge.fit_classifier", once)
        patch.setattr("latentebm.workflow.panel_metrics.fit_panel", partial(fit_panel, seen=6_000))
        return debias(Settings(**short, out=str(out))).folder
