"""Samplers: all they need of a model is ``potential(x) -> (N,)``, or a base distribution and an energy."""

from latentebm.sampling.auto import Auto
from latentebm.sampling.classifier import (
    ConditionalSampler,
    JointSampler,
    Labelled,
    UnconditionalSampler,
    energy_differential,
    energy_penalty,
)
from latentebm.sampling.compiled.perceptrons import FusedMLP
from latentebm.sampling.diagnostics import Agreement, agreement, bfmi, ess_bulk, ess_tail, max_rhat, rhat
from latentebm.sampling.draws import Draws, Sampler
from latentebm.sampling.goodness import SteinTest, TwoSampleTest, classifier_test, stein_test
from latentebm.sampling.importance.annealed_weights import Bracket, bracket_log_z
from latentebm.sampling.importance.rejection import ISIR, Rejection
from latentebm.sampling.importance.resampling import resample
from latentebm.sampling.importance.smc import TemperedSMC
from latentebm.sampling.importance.snis import SNIS
from latentebm.sampling.importance.weights import LEAST_ESS, WeightSums, ess, normalised
from latentebm.sampling.mcmc import optim
from latentebm.sampling.mcmc.chains import run_chains
from latentebm.sampling.mcmc.hamiltonian import HMC, NUTS
from latentebm.sampling.mcmc.kernels import MALA, SGLD, ULA, ImproperSGLD, Kernel, RandomWalk
from latentebm.sampling.mcmc.langevin import Langevin
from latentebm.sampling.mcmc.pcn import PCN, PCNL
from latentebm.sampling.mcmc.persistent import PMC, ReplayBuffer
from latentebm.sampling.mcmc.slice import EllipticalSlice
from latentebm.sampling.mcmc.state import ChainInfo, ChainRun, ChainState, start_chains
from latentebm.sampling.mcmc.tempering import ParallelTempering
from latentebm.sampling.mcmc.tuning import tune_step
from latentebm.sampling.target import Target

# By subject: samplers and their targets, kernels, chains, energies of classifiers, diagnostics, weights.
__all__ = ["HMC", "ISIR", "NUTS", "PMC", "SNIS", "Draws", "Langevin", "Rejection", "Sampler", "Target"]
__all__ += ["MALA", "SGLD", "ULA", "FusedMLP", "ImproperSGLD", "Kernel", "RandomWalk", "optim", "tune_step"]
__all__ += ["PCN", "PCNL", "Auto", "Bracket", "EllipticalSlice", "ParallelTempering", "TemperedSMC", "bracket_log_z"]
__all__ += ["ChainInfo", "ChainRun", "ChainState", "ReplayBuffer", "run_chains", "start_chains"]
__all__ += ["ConditionalSampler", "JointSampler", "Labelled", "UnconditionalSampler"]
__all__ += ["energy_differential", "energy_penalty"]
__all__ += ["Agreement", "agreement", "bfmi", "ess_bulk", "ess_tail", "max_rhat", "rhat"]
__all__ += ["SteinTest", "TwoSampleTest", "classifier_test", "stein_test"]
__all__ += ["LEAST_ESS", "WeightSums", "ess", "normalised", "resample"]
