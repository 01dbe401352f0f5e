"""What a `Debiaser` is asked: its constructor arguments, their check, and what follows from them alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import BaseEstimator

from latentebm.checks import check_choice, check_int, check_number
from latentebm.devices import pick_device
from latentebm.models.likelihoods import LIKELIHOODS
from latentebm.models.networks import NETWORKS
from latentebm.progress import Track, bars, silent
from latentebm.sampling import Sampler
from latentebm.sampling.named import named_sampler
from latentebm.tilting.spaces import POSTERIORS, SPACES, Space
from latentebm.training.fit_vae import PRECISIONS

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Parameters"]


class Parameters(BaseEstimator):
    """The settings of :class:`latentebm.debiaser.Debiaser`, which says what they mean, stored as given.

    Raises:
        ValueError: in `check`, where a setting lies outside its range.

    Example:
        >>> Parameters(latent_dim=10).check().latent_dim
        10
    """

    def __init__(
        self,
        *,
        latent_dim: int = 2,
        network: str = "mlp",
        width: int = 512,
        likelihood: str = "bernoulli",
        kl_weight: float | None = None,
        epochs: int = 40,
        space: str = "latent",
        positives: str = "reconstructed",
        objective: str = "likelihood",
        negatives: str = "persistent",
        energy_penalty: float = 0.25,
        gradient_penalty: float = 0.0,
        calibrate: bool = False,
        posterior: str = "draws",
        folds: int | None = None,
        clusters: int | None = None,
        tilt_steps: int | None = None,
        sampler: str = "snis",
        pool: int | None = None,
        langevin_steps: int = 200,
        precision: str = "auto",
        seed: int = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.network = network
        self.width = width
        self.likelihood = likelihood
        self.kl_weight = kl_weight
        self.epochs = epochs
        self.space = space
        self.positives = positives
        self.objective = objective
        self.negatives = negatives
        self.energy_penalty = energy_penalty
        self.gradient_penalty = gradient_penalty
        self.calibrate = calibrate
        self.posterior = posterior
        self.folds = folds
        self.clusters = clusters
        self.tilt_steps = tilt_steps
        self.sampler = sampler
        self.pool = pool
        self.langevin_steps = langevin_steps
        self.precision = precision
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def check(self) -> Self:
        """Check every setting, so that a mistake is known before any work.

        Raises:
            ValueError: a setting lies outside its range.
        """
        for name in ("latent_dim", "width", "epochs"):
            check_int(name, getattr(self, name))
        check_int("seed", self.seed, low=0)
        check_number("kl_weight", self._kl_weight(), low=0, open_low=True)
        check_choice("network", self.network, NETWORKS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("posterior", self.posterior, POSTERIORS)
        pick_device(self.device)
        self._space()
        self._sampler(1)
        return self

    def _space(self) -> Space:
        return Space(**{name: getattr(self, name) for name in Space.__dataclass_fields__})

    def _kl_weight(self) -> float:
        if self.kl_weight is None:
            return 1.0 if self.latent_dim <= 3 else 1.5
        return self.kl_weight

    def _sampler(self, n: int) -> Sampler:
        pool = SPACES[self._space().space].pool if self.pool is None else self.pool
        return named_sampler(self.sampler, pool=pool, steps=self.langevin_steps, n=n)

    def _generator(self, stage: int, seed: int | None = None) -> torch.Generator:
        """A stream of its own for each stage, so that one stage's draws never shift another's."""
        root = check_int("seed", self.seed if seed is None else seed, low=0)
        state = np.random.SeedSequence([root, stage]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))

    def _track(self) -> Track:
        return bars if self.verbose else silent
