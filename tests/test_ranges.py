"""Every setting of samplers, losses and mechanisms takes its whole range, ends as documented, and nothing beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from latentebm.missing.mechanisms import MCAR, ByClass, SelfMasking, make_missing
from latentebm.objectives.contrast import contrastive_loss, jem_loss
from latentebm.objectives.sampler_entropy import sampler_score
from latentebm.objectives.score_matching import multiscale_score_matching, sliced_score_matching
from latentebm.objectives.tilt_losses import calibrated, jensen_loss
from latentebm.sampling import (
    HMC,
    ISIR,
    MALA,
    NUTS,
    PCN,
    PCNL,
    PMC,
    SGLD,
    ULA,
    Auto,
    ConditionalSampler,
    ImproperSGLD,
    JointSampler,
    Langevin,
    ParallelTempering,
    RandomWalk,
    Rejection,
    TemperedSMC,
    WeightSums,
    agreement,
    bracket_log_z,
    classifier_test,
    run_chains,
    stein_test,
    tune_step,
)
from latentebm.sampling.importance.two_stage import TwoStage
from latentebm.sampling.mcmc.annealed import annealed_langevin
from latentebm.tilting.clusters.reweight import cluster_weights
from latentebm.training.keep import Average, Guard
from tests.sampling_targets import GaussianTilt, gen

X, E, Y = torch.randn(12, 2, generator=gen()), torch.zeros(3), torch.zeros(3, dtype=torch.long)
NET = torch.nn.Linear(1, 1)


def flat(x):
    return x.square().sum(1) / 2


def chains(n_steps=1, **own):
    return run_chains(flat, X[:2], ULA(0.1), n_steps, generator=gen(), **own)


def base(n, generator):
    return torch.zeros(n, 2)


def clusters(**own):
    settings = {"clusters": 1, "members": 1, "shrinkage": 0.0} | own
    return cluster_weights(X, X, torch.ones(12).long(), generator=gen(), **settings)


def annealed(**own):
    return annealed_langevin(lambda x, s: 0 * flat(x), X, [0.1], **{"n_steps": 1, "generator": gen()} | own)


def at_two_scales(**own):
    return multiscale_score_matching(lambda x, s: flat(x), X, torch.linspace(1, 2, 12), generator=gen(), **own)


def bracket(**own):
    return bracket_log_z(GaussianTilt(), ladder=[0, 1], draws=X, generator=gen(), **own)


# name, least, most, whether the least is left out, and what takes it
NUMBERS = [
    *[("step", 0, 1e12, True, k) for k in (ULA, MALA, RandomWalk)],
    ("temperature", 0, 1e12, False, lambda v: ULA(0.1, temperature=v)),
    ("temperature", 0, 1e12, True, lambda v: MALA(0.1, temperature=v)),
    ("temperature", 0, 1e12, False, lambda v: SGLD(temperature=v)),
    ("clip", 0, math.inf, True, lambda v: ULA(0.1, clip=v)),
    ("a", 0, 1e12, True, lambda v: SGLD(a=v)),
    ("b", 0, 1e12, True, lambda v: SGLD(b=v)),
    ("gamma", 0, 1, False, lambda v: SGLD(gamma=v)),
    ("alpha", 0, 1e12, True, lambda v: ImproperSGLD(alpha=v, sigma=0.1)),
    ("sigma", 0, 1e12, False, lambda v: ImproperSGLD(alpha=0.1, sigma=v)),
    ("beta", 0, 1, True, PCN),
    ("delta", 0, 2, True, PCNL),
    ("trajectory", 0, 1e6, True, lambda v: HMC(trajectory=v)),
    *[("target", 0.01, 0.99, False, lambda v, s=s: s(target=v)) for s in (HMC, Langevin, TemperedSMC)],
    ("target", 0.01, 0.99, False, lambda v: ParallelTempering(target=v)),
    ("target", 0.01, 0.99, False, lambda v: tune_step(flat, X[:2], MALA(0.1), 1, target=v, generator=gen())),
    ("ess", 0.05, 0.95, False, lambda v: TemperedSMC(ess=v)),
    ("restart", 0, 1, False, lambda v: PMC(ULA(0.1), restart=v)),
    ("seconds", 0, math.inf, True, lambda v: TwoStage(seconds=v)),
    ("slope", 0, 1e6, False, lambda v: SelfMasking(slope=v)),
    ("rates", 0, 1, False, lambda v: ByClass({0: v})),
    ("energy_penalty", 0, math.inf, True, lambda v: jensen_loss(E, E, energy_penalty=v)),
    ("energy_penalty", 0, math.inf, True, lambda v: calibrated(E, energy_penalty=v)),
    ("limit", 0, 1 - 1e-7, True, lambda v: calibrated(E, energy_penalty=0.1, limit=v)),
    ("weight", 0, math.inf, False, lambda v: contrastive_loss(E, E, weight=v)),
    ("energy_penalty", 0, math.inf, False, lambda v: contrastive_loss(E, E, energy_penalty=v)),
    ("penalty", 0, math.inf, False, lambda v: jem_loss(torch.zeros(3, 2), Y, E, E, penalty=v)),
    ("noise", 0, math.inf, True, lambda v: sampler_score(lambda z: z, X, X, noise=v, generator=gen())),
    ("scale_weight", 0, math.inf, False, lambda v: at_two_scales(scale_weight=v)),
    ("shrinkage", 0, math.inf, False, lambda v: clusters(shrinkage=v)),
    ("max_gap", 0, math.inf, True, lambda v: Guard(NET, max_gap=v)),
    ("average", 0, 0.99999, False, lambda v: Average(NET, v)),
    ("step", 0, math.inf, True, lambda v: annealed(step=v)),
]  # fmt: skip


@pytest.mark.parametrize("row", NUMBERS, ids=lambda r: r[0])
def test_numbers(row):
    name, low, high, open_low, take = row
    inside = [low + 1e-9] if open_low else [low]
    inside += [1e3 if high == math.inf else high]
    outside = [low if open_low else np.nextafter(low, -math.inf), low - 2, math.nan, "much"]
    for value in inside:
        take(value)
    for value in outside + ([np.nextafter(high, math.inf)] if high < math.inf else []):
        with pytest.raises(ValueError, match=name):
            take(value)


COUNTS = [
    *[(f, 1, lambda v, s=s, f=f: s(**{f: v})) for s in (HMC, NUTS) for f in ("chains", "warm_up")],
    ("max_tree_depth", 1, lambda v: NUTS(max_tree_depth=v)),
    *[(f, low, lambda v, f=f: ParallelTempering(**{f: v})) for f, low in (("rounds", 1), ("n_steps", 1))],
    *[(f, 0, lambda v, f=f: ParallelTempering(**{f: v})) for f in ("warm_up", "trace")],
    *[(f, 1, lambda v, f=f: Langevin(**{f: v})) for f in ("n_steps", "thin", "chunk")],
    *[(f, 0, lambda v, f=f: Langevin(**{f: v})) for f in ("warm_up", "trace")],
    *[(f, 1, lambda v, f=f: TemperedSMC(**{f: v})) for f in ("particles", "n_steps")],
    *[(f, 1, lambda v, f=f: TwoStage(**{f: v})) for f in ("decodes", "pool", "chunk")],
    ("pilot", 20, lambda v: TwoStage(pilot=v)),
    *[(f, 1, lambda v, f=f: Rejection(**{f: v})) for f in ("pilot", "chunk", "max_proposals")],
    *[(f, 1, lambda v, f=f: ISIR(**{f: v})) for f in ("proposals", "n_steps", "chunk")],
    *[(f, 1, lambda v, f=f: PMC(ULA(0.1), **{f: v})) for f in ("n_steps", "size")],
    *[(f, 1, lambda v, f=f: Auto(**{f: v})) for f in ("pool", "particles", "proposals", "n_steps")],
    *[(f, 1, lambda v, f=f: chains(**{f: v})) for f in ("n_steps", "thin", "chunk")],
    ("trace", 0, lambda v: chains(trace=v)),
    ("n_steps", 1, lambda v: tune_step(flat, X[:2], MALA(0.1), v, generator=gen())),
    ("n_steps", 1, lambda v: annealed(n_steps=v)),
    ("permutations", 1, lambda v: agreement(X[:4], X[4:8], generator=gen(), permutations=v)),
    ("permutations", 1, lambda v: classifier_test(X, X + 1, generator=gen(), permutations=v)),
    ("folds", 2, lambda v: classifier_test(X, X + 1, generator=gen(), permutations=1, folds=v)),
    ("bootstraps", 1, lambda v: stein_test(flat, X, generator=gen(), bootstraps=v)),
    *[(f, 1, lambda v, f=f: bracket(**{f: v})) for f in ("chains", "n_steps")],
    ("projections", 1, lambda v: sliced_score_matching(flat, X, projections=v, generator=gen())),
    ("k", 1, lambda v: sampler_score(lambda z: z, X, X, noise=1.0, k=v, generator=gen())),
    *[(f, 1, lambda v, f=f: clusters(**{f: v})) for f in ("clusters", "members")],
    *[(f, low, lambda v, f=f: Guard(NET, **{f: v})) for f, low in (("every", 1), ("retries", 0))],
    ("size", 1, WeightSums),
    *[(f, 1, lambda v, f=f: ConditionalSampler(flat, base, **{"classes": 2, f: v})) for f in ("classes", "chunk")],
    ("every", 1, lambda v: JointSampler(flat, base, classes=2, every=v)),
]  # fmt: skip


@pytest.mark.parametrize("row", COUNTS, ids=lambda r: r[0])
def test_counts(row):
    name, low, take = row
    take(low)
    for value in (low - 1, low + 0.5, True, "two"):
        with pytest.raises(ValueError, match=f"{name}: expected a whole number"):
            take(value)


def test_a_share_of_one_is_no_share_to_remove():
    for rate in (1, 1.0, np.nextafter(1, 2), -0.1, math.nan):
        with pytest.raises(ValueError, match="rate: expected"):
            make_missing(np.ones((3, 2)), MCAR(), rate)
    assert make_missing(np.ones((3, 2)), MCAR(), 0)[1].all()
