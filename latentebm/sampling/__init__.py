"""Samplers: all they need of a model is ``potential(x) -> (N,)``, or a base distribution and an energy."""

from latentebm.sampling.classifier import (
    ConditionalSampler,
    JointSampler,
    Labelled,
    UnconditionalSampler,
    energy_differential,
    energy_penalty,
)
from latentebm.sampling.compiled.fused import FusedMLP
from latentebm.sampling.diagnostics import Agreement, agreement, bfmi, ess_bulk, ess_tail, max_rhat, rhat
from latentebm.sampling.draws import Draws, Sampler
from latentebm.sampling.importance.rejection import ISIR, Rejection
from latentebm.sampling.importance.resampling import resample
from latentebm.sampling.importance.snis import SNIS
from latentebm.sampling.importance.weights import LEAST_ESS, WeightSums, ess, normalised
from latentebm.sampling.mcmc import optim
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.hamiltonian import HMC, NUTS
from latentebm.sampling.mcmc.kernels import MALA, SGLD, ULA, ImproperSGLD, Kernel, RandomWalk
from latentebm.sampling.mcmc.langevin import Langevin
from latentebm.sampling.mcmc.persistent import PMC, ReplayBuffer
from latentebm.sampling.mcmc.state import ChainInfo, ChainRun, ChainState, start_chains
from latentebm.sampling.mcmc.tuning import tune_step
from latentebm.sampling.target import Target

__all__ = [
    "HMC",
    "ISIR",
    "LEAST_ESS",
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
    "ess",
    "ess_bulk",
    "ess_tail",
    "max_rhat",
    "normalised",
    "optim",
    "resample",
    "rhat",
    "run_chains",
    "start_chains",
    "tune_step",
]
