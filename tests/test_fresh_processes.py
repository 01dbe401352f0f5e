"""Every public fit gives the same digits in a fresh process, whatever the global random streams hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from latentebm.debiaser import Debiaser
from latentebm.disk.statefile import digest
from latentebm.ebm.learned_sampler import SamplerRecipe, fit_sampler
from latentebm.missing.imputer import MIWAEImputer
from latentebm.models.sampler_net import SamplerNet
from latentebm.progress import silent
from latentebm.tables.table_debiaser import TableDebiaser
from latentebm.tables.targets import Share
from tests.test_checkpoint import FITS, IMAGES, X


def debiaser(g, track):
    model = Debiaser(width=8, epochs=1, folds=2, tilt_steps=4, pool=500, device="cpu")
    draws = model.fit(IMAGES[:48], IMAGES[48:]).sample(9)
    return [model.vae_.state_dict(), model.energy_.state_dict(), draws.x, draws.latent]


def sampler(entropy):
    def work(g, track):
        source = SamplerNet(2, 2, hidden=(8,), noise=0.5, generator=g)
        recipe = SamplerRecipe(entropy=entropy, steps=5, batch=16)
        fit_sampler(lambda x: x.square().sum(1) / 2, source, recipe, generator=g)
        return source.state_dict()

    return work


def imputer(g, track):
    holes = X[:60].numpy().astype(float)
    holes[::5, 0] = np.nan
    return torch.tensor(MIWAEImputer(steps=10, draws=5, device="cpu").fit_transform(holes))


def table(g, track):
    frame = pd.DataFrame({"a": X[:, 0].numpy(), "b": (X[:, 1] > 0).numpy()})
    model = TableDebiaser(Share("b", {True: 0.8, False: 0.2}), steps=5, width=8, pool=500)
    drawn = model.fit(frame).sample(9)
    return torch.tensor(drawn.to_numpy(dtype=float))


GLOBAL = ("vae", "miwae", "judge")  # their modules come from outside, built from torch's own stream


def weights(work):
    return lambda g, track: work(g, track).state_dict()


def given(work):
    def seeded(g, track):
        torch.manual_seed(3)
        return work(g, track).state_dict()

    return seeded


ALL = {
    **{name: given(work) if name in GLOBAL else weights(work) for name, work in FITS.items()},
    "debiaser": debiaser,
    "imputer": imputer,
    "table": table,
    **{f"sampler {name}": sampler(name) for name in ("variational", "mutual-information")},
}


def digits(seed):
    """A digest of each fit, with the global streams at some other place."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    return {name: digest(work(torch.Generator().manual_seed(3), silent)) for name, work in ALL.items()}


def test_every_fit_is_the_same_in_a_fresh_process():
    program = "import json; from tests.test_fresh_processes import digits; print(json.dumps(digits(2)))"
    root = Path(__file__).parents[1]
    other = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True)
    with other:
        own = digits(1)
        assert json.loads(other.communicate()[0]) == own
