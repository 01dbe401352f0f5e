"""Samplers: all they need of a model is ``potential(x) -> (N,)``, or a base law and an energy."""

from latentebm.sampling import optim
from latentebm.sampling.chains import run_chains
from latentebm.sampling.classifier import (
    ConditionalSampler,
    JointSampler,
    Labelled,
    UnconditionalSampler,
    energy_differential,
    energy_penalty,
)
from latentebm.sampling.diagnostics import Agreement, agreement, bfmi, ess_bulk, ess_tail, max_rhat, rhat
from latentebm.sampling.draws import Draws, Sampler, Target
from latentebm.sampling.fused import FusedMLP
from latentebm.sampling.importance import SNIS
from latentebm.sampling.kernels import MALA, SGLD, ULA, ImproperSGLD, Kernel, RandomWalk
from latentebm.sampling.langevin import Langevin
from latentebm.sampling.nuts import HMC, NUTS
from latentebm.sampling.persistent import PMC, ReplayBuffer
from latentebm.sampling.rejection import ISIR, Rejection
from latentebm.sampling.resampling import resample
from latentebm.sampling.state import ChainInfo, ChainRun, ChainState, start_chains
from latentebm.sampling.tuning import tune_step
from latentebm.sampling.weights import WeightSums

__all__ = [
    "HMC",
    "ISIR",
    "MALA",
    "NUTS",
    "PMC",
    "SGLD",
    "SNIS",
    "ULA",
    "Agreement",
    "ChainInfo",
    "ChainRun",
    "ChainState",
    "ConditionalSampler",
    "Draws",
    "FusedMLP",
    "ImproperSGLD",
    "JointSampler",
    "Kernel",
    "Labelled",
    "Langevin",
    "RandomWalk",
    "Rejection",
    "ReplayBuffer",
    "Sampler",
    "Target",
    "UnconditionalSampler",
    "WeightSums",
    "agreement",
    "bfmi",
    "energy_differential",
    "energy_penalty",
    "ess_bulk",
    "ess_tail",
    "max_rhat",
    "optim",
    "resample",
    "rhat",
    "run_chains",
    "start_chains",
    "tune_step",
]
