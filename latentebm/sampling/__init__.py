"""Samplers: all they need of a model is ``potential(x) -> (N,)``, or a base law and an energy."""

from latentebm.sampling.chains import ChainInfo, ChainRun, ChainState, run_chains, start_chains, tune_step
from latentebm.sampling.diagnostics import Agreement, agreement, bfmi, ess_bulk, ess_tail, max_rhat, rhat
from latentebm.sampling.draws import Draws, Sampler, Target
from latentebm.sampling.importance import SNIS
from latentebm.sampling.kernels import MALA, SGLD, ULA, ImproperSGLD, Kernel
from latentebm.sampling.langevin import Langevin
from latentebm.sampling.weights import WeightSums, resample

__all__ = [
    "MALA",
    "SGLD",
    "SNIS",
    "ULA",
    "Agreement",
    "ChainInfo",
    "ChainRun",
    "ChainState",
    "Draws",
    "ImproperSGLD",
    "Kernel",
    "Langevin",
    "Sampler",
    "Target",
    "WeightSums",
    "agreement",
    "bfmi",
    "ess_bulk",
    "ess_tail",
    "max_rhat",
    "resample",
    "rhat",
    "run_chains",
    "start_chains",
    "tune_step",
]
