"""What starts quickly stays so: modules are imported when used, and mistakes answered before torch is there."""

from __future__ import annotations

import subprocess
import sys

from latentebm.cli.ampute import DIRECTIONS, KINDS
from latentebm.cli.missing import CHOICES
from latentebm.cli.sample import FORMATS
from latentebm.data.augment import AUGMENTATIONS
from latentebm.missing.mechanisms import mechanism
from latentebm.missing.miwae import DECODERS, MISSING_MODELS
from latentebm.models.likelihoods import LIKELIHOODS
from latentebm.models.networks import NETWORKS
from latentebm.sampling.named import SAMPLERS
from latentebm.settings.declaration import settings_of
from latentebm.settings.fields import Settings
from latentebm.tilting.objectives import OBJECTIVES
from latentebm.tilting.spaces import SPACES
from latentebm.training.fit_vae import PRECISIONS
from latentebm.workflow import shards

HEAVY = ("torchvision", "pyro", "arviz_base", "arviz_stats", "pandas", "scipy", "matplotlib", "sklearn", "torchmetrics")


def loaded(code, *names):
    """Which modules a fresh process has after some code, and what it printed."""
    after = f"import sys; print('loaded:', *[n for n in {list(names)} if n in sys.modules])"
    script = f"{code}\n{after}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:], done.stdout


def test_the_estimator_imports_what_it_needs_alone():
    assert loaded("from latentebm import Debiaser, tilt_generator, SNIS, HMC, load_images", *HEAVY)[0] == []


def test_what_is_imported_is_seen():
    assert loaded("import scipy.special", *HEAVY)[0] == ["scipy"]


SAID = [
    (["--help"], "compare"),
    (["debias", "--sampler", "mla"], "--sampler: expected one of snis, langevin, mala"),
    (["debias", "--objective", "jenson"], "--objective: expected one of likelihood"),
    (["debias", "--epochs", "0"], "--epochs: expected a whole number of at least 1"),
    (["debias", "--kl-weight", "-1"], "--kl-weight: expected a number above 0"),
    (["debias", "--latent-dim", "two"], "--latent-dim"),
    (["debias", "--device", "gpu"], "--device: expected auto, cpu, cuda"),
    (["plan", "run", "--device", "gpu"], "--device: expected auto, cpu, cuda"),
    (["sample", "run", "--device", "gpu"], "--device: expected auto, cpu, cuda"),
    (["debias", "--smapler", "mala"], "--smapler"),
    (["sample", "run", "--sampler", "mla"], "--sampler: expected one of snis"),
    (["sample", "run", "--format", "jpg"], "format: expected one of npz"),
    (["impute", "t.csv", "--out", "o.csv", "--decoder", "mpl"], "decoder: expected one of mlp"),
    (["ampute", "t.csv", "--out", "o.csv", "--kind", "probbit"], "kind: expected one of hard"),
]


def test_help_and_mistakes_need_no_torch():
    """In one process, one after another."""
    code = f"from typer.testing import CliRunner as R; from latentebm.cli.app import app; A = {[a for a, _ in SAID]}"
    code += "; print(*(R().invoke(app, a, env={'COLUMNS': '200'}).output for a in A), sep=chr(0))"
    modules, output = loaded(code, "torch", *HEAVY)
    assert modules == []
    for (_, said), found in zip(SAID, output.split("\0"), strict=True):
        assert said in found


def test_declared_names_are_those_that_are_known():
    known = {
        "network": NETWORKS.kinds,
        "likelihood": LIKELIHOODS,
        "precision": PRECISIONS,
        "augment": ("auto", *AUGMENTATIONS),
        "space": SPACES.kinds,
        "objective": OBJECTIVES.kinds,
        "sampler": SAMPLERS,
    }
    declared = {s.name: s.names for s in settings_of(Settings) if s.names}
    assert {name: declared[name] for name in known} == {name: tuple(choices) for name, choices in known.items()}
    assert tuple(shards.FORMATS) == FORMATS
    assert (CHOICES["missing_model"], CHOICES["decoder"]) == (MISSING_MODELS, DECODERS)
    assert (mechanism.KINDS, mechanism.DIRECTIONS) == (KINDS, DIRECTIONS)
