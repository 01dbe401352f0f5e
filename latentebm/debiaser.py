"""The estimator: fit a VAE to biased images, tilt it to a reference, draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from latentebm.checks import check_int, fail
from latentebm.data.images import as_images
from latentebm.devices import pick_device
from latentebm.models.saving import load_weights
from latentebm.models.scaled_tilt import ScaledTilt
from latentebm.models.tilts import Tilt
from latentebm.models.vae import VAE
from latentebm.objectives.tilt_losses import gain
from latentebm.parameters_tmp import Parameters
from latentebm.progress import Track
from latentebm.sampling import SNIS, Draws
from latentebm.tilting.spaces import SPACES
from latentebm.training.fit_vae import fit_vae
from latentebm.workflow.folder import load_config, save_model

__all__ = ["Debiaser"]


class Debiaser(Parameters):
    r"""Learns a biased generator, tilts it to a small unbiased reference, and draws from the result.

    .. math:: p_E(z) \propto e^{-E(z)}\, N(z; 0, I), \qquad
              E = \arg\max\; -E_{q_{ref}}[E(z)] - \log Z

    Arguments:
        latent_dim: length of the code.
        network: ``mlp`` or ``conv``.
        width: hidden units of the VAE.
        likelihood: ``bernoulli`` or ``gaussian``.
        kl_weight: weight of the ELBO's KL term in training; above 1 the codes fill the prior more evenly, which many
            dimensions need. None takes 1 up to three dimensions and 1.5 above.
        epochs: passes over the biased images.
        space: where the energy lives: ``latent`` (of the code) or ``data`` (of the decoded image).
        positives: in data space, the reference ``reconstructed`` by the VAE, or ``raw`` with observation noise on both
            sides, whose weights collapse wherever the VAE's images and real ones differ.
        objective: ``likelihood``, ``jensen``, ``nce``, ``contrastive``, ``amortized`` (contrastive against a sampler
            learned along) or ``score`` (denoising score matching of latent codes, the posterior's spread being the
            noise: it tells less of the balance of classes that lie apart).
        negatives: where the contrastive objective's chains start: ``persistent`` or ``prior``.
        energy_penalty: λ of the Jensen objective.
        gradient_penalty: weight of the squared gradient norm; 0 for none.
        calibrate: turn a Jensen energy into the log-ratio's by artanh.
        posterior: fit on posterior ``draws`` or, as some published work did, on the ``means`` alone.
        folds: ensemble members, each fitted without its own fold of the reference; None takes 5, in data space 3.
        clusters: soft clusters of the biased images (likelihood objective). The reference says how much of each there
            should be; a first tilt is fitted to the biased codes so weighted, and refined on the reference's own. None
            takes 20 below 1,000 reference images and none above; 0 for none, and no first tilt. Latent space only.
        tilt_steps: most optimizer steps of the energy; None takes 1,500, in data space 400.
        sampler: ``snis``; ``mala`` (or ``langevin``, the same), a Metropolis-adjusted Langevin chain a draw; ``pmc``,
            the same from a replay buffer; ``hmc`` or ``nuts``, four long chains whose draws depend on each other.
        pool: base draws of SNIS; None takes 1,000,000, in data space, where each is decoded, 100,000.
        langevin_steps: steps of each chain of ``mala`` and ``pmc``.
        precision: ``auto``, ``bf16`` or ``fp32`` in the VAE's training.
        seed: of everything random.
        device: ``auto``, ``cpu`` or ``cuda``.
        verbose: show progress bars.

    Attributes:
        vae_: the fitted VAE.
        biased_: the biased images, (N, C, H, W), uint8, which a small reference's tilt starts from; not saved.
        energy_: the fitted `EnergyNet`, or in data space `DataEnergy`.
        heldout_gain_: cross-validated gain of the tilt, nats an image.

    Raises:
        ValueError: in `fit`, where a setting or an image array is not as described.

    References:
        Learning Latent Space Energy-Based Prior Model (Pang et al., 2020), https://arxiv.org/abs/2006.08205

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> biased, reference = rng.random((64, 8, 8)), rng.random((16, 8, 8))
        >>> model = Debiaser(width=16, epochs=1, folds=2, tilt_steps=10, pool=1000).fit(biased, reference)
        >>> model.sample(5).x.shape
        torch.Size([5, 1, 8, 8])
    """

    def fit(self, biased: np.ndarray | Tensor, reference: np.ndarray | Tensor) -> Debiaser:
        """Fit the VAE to biased images, then the tilt to reference images; labels are never needed.

        Arguments:
            biased: uint8, or float in [0, 1]; (N, H, W) or (N, C, H, W).
            reference: the same shape of image, at least two.

        Raises:
            ValueError: a setting or an array is not as described.
        """
        as_images(reference, name="reference")
        return self.fit_vae(biased).fit_tilt(reference)

    def fit_vae(self, biased: np.ndarray | Tensor, *, track: Track | None = None) -> Debiaser:
        """Fit the VAE alone to biased images.

        Raises:
            ValueError: a setting or the array is not as described.
        """
        images = as_images(biased, name="biased").images
        device, rng = pick_device(self.check().device), self._generator(1)
        with torch.random.fork_rng(devices=[]):
            # Layers initialise themselves from torch's global stream, which is seeded inside this fork only.
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
            vae = VAE(
                tuple(images.shape[1:]),
                self.latent_dim,
                network=self.network,
                width=self.width,
                likelihood=self.likelihood,
            ).to(device)
        self.vae_log_ = fit_vae(
            vae,
            images,
            epochs=self.epochs,
            kl_weight=self._kl_weight(),
            precision=self.precision,
            generator=rng,
            track=track or self._track(),
        )
        self.vae_ = vae.requires_grad_(False)
        self.biased_ = images
        return self

    def fit_tilt(self, reference: np.ndarray | Tensor, *, track: Track | None = None) -> Debiaser:
        """Fit the tilt alone to reference images, the VAE as it is.

        Raises:
            ValueError: a setting or the array is not as described, or there is no VAE yet.
        """
        images = self._reference(reference)
        space, rng = self.check()._space(), self._generator(2)
        biased = getattr(self, "biased_", None)
        if biased is None:
            fix = "fit the VAE here, or set biased_ to its training images (N, C, H, W), uint8"
            raise fail("biased_", "the images the VAE was trained on", "none, as a loaded model has none", fix)
        fitted = space.fit(self.vae_, images, biased, generator=rng, track=track or self._track())
        self.energy_, self.energy_log_, self.heldout_gain_ = fitted
        return self

    def sample(self, n: int, *, strength: float = 1.0, seed: int | None = None, track: Track | None = None) -> Draws:
        """Draw `n` debiased images.

        Arguments:
            n: images.
            strength: factor λ of the energy in [0, 1.5]: 0 draws from the generator as it is, 1 from the fitted tilt.
            seed: of the draws; None takes the estimator's own.
            track: shows progress.

        Returns:
            Draws with `x` (n, C, H, W) in [0, 1], where noise of Gaussian pixels is cut off, `latent`, `log_weight` and
            `diagnostics`.

        Raises:
            ValueError: not fitted yet, or a setting is not as described.
        """
        check_int("n", n)
        rng, tilt = self._generator(3, seed), self.tilt(strength)
        draws = self._sampler(n).draw(tilt, n, generator=rng, track=track or self._track())
        trace = None if draws.trace is None else tilt.code(draws.trace)
        return replace(draws, x=draws.x.clamp(0, 1), latent=tilt.code(draws.latent), trace=trace)

    def sample_prior(self, n: int, *, seed: int | None = None) -> Draws:
        """Draw `n` images of the generator as it is, untilted; observed through noise where the tilted ones are.

        Raises:
            ValueError: no VAE yet, or n below one.
        """
        self._fitted("vae_")
        tilt = self._space().tilt(self.vae_, nn.Identity())
        u = tilt.sample_base(check_int("n", n), generator=self._generator(4, seed))
        return Draws(tilt.decode(u).clamp(0, 1), tilt.code(u), torch.zeros(n), {"sampler": "prior"})

    def weigh(self, pool: int | None = None) -> dict[str, Any]:
        """Health of the importance weights over a pool of prior draws, whatever the sampler.

        Arguments:
            pool: base draws; None takes 200,000, in data space 50,000.

        Returns:
            ``ess`` as a share of the pool, ``pareto_k`` and ``pareto_k_threshold``, ``log_z`` and ``log_z_se`` in
            nats, and ``reliable``.

        Raises:
            ValueError: not fitted yet.
        """
        names = ("ess", "pareto_k", "pareto_k_threshold", "log_z", "log_z_se", "reliable")
        sampler = SNIS(pool=pool or SPACES[self.space].weighed)
        report = sampler.draw(self.tilt(), 1, generator=self._generator(5)).diagnostics
        return {name: report[name] for name in names}

    def gain(self, images: np.ndarray | Tensor, *, seed: int | None = None) -> float:
        """Gain of the whole ensemble on other images, in nats an image.

        Raises:
            ValueError: not fitted yet, or the array is not as described.
        """
        tilt, rng = self.tilt(), self._generator(6, seed)
        reference = self._space().reference_energy(tilt, self._reference(images), rng)
        base = tilt.sample_base(SPACES[self.space].weighed, generator=rng)
        with torch.no_grad():
            energy = torch.cat([tilt.energy(part) for part in base.split(16_384)])
        return float(gain(reference, energy))

    def tilt(self, strength: float = 1.0) -> Tilt:
        """The fitted tilted model, its energy multiplied by a strength in [0, 1.5].

        Raises:
            ValueError: not fitted yet, or another strength.
        """
        self._fitted("energy_")
        tilt = self._space().tilt(self.vae_, self.energy_)
        return tilt if strength == 1 else ScaledTilt(tilt, strength)

    def save(self, folder: Path | str) -> Path:
        """Write the weights and ``config.json`` into a folder, each file whole or not at all.

        Raises:
            ValueError: not fitted yet.
            OSError: the folder cannot be written.
        """
        self._fitted("energy_")
        modules = {"vae": self.vae_, "energy": self.energy_}
        return save_model(folder, self.get_params(), modules, {"heldout_gain": self.heldout_gain_})

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "auto", verbose: bool = False) -> Debiaser:
        """Read what `save` wrote, or a run folder, after checking every weight file's SHA-256.

        Raises:
            FileNotFoundError: the folder lacks ``config.json`` or a weight file.
            ValueError: a weight file is not the one that was written.
        """
        config = load_config(folder)
        model = cls(**{**config["debiaser"], "device": device, "verbose": verbose})
        shapes = config["models"]
        model.vae_ = VAE(**{**shapes["vae"], "data_shape": tuple(shapes["vae"]["data_shape"])})
        model.energy_ = model._space().build(shapes["energy"])
        for name, module in {"vae": model.vae_, "energy": model.energy_}.items():
            load_weights(Path(folder) / f"{name}.safetensors", module)
            module.to(pick_device(device)).requires_grad_(False).eval()
        model.heldout_gain_ = config["learned"]["heldout_gain"]
        return model

    def _reference(self, reference: np.ndarray | Tensor) -> Tensor:
        self._fitted("vae_")
        images = as_images(reference, name="reference").images
        if tuple(images.shape[1:]) != self.vae_.data_shape:
            raise fail("reference", f"images of shape {self.vae_.data_shape}", tuple(images.shape[1:]), "resize them")
        if len(images) < 2:
            raise fail("reference", "at least 2 images", len(images), "pass more reference images")
        return images

    def _fitted(self, name: str) -> None:
        if not hasattr(self, name):
            raise fail("Debiaser", "a fitted model", "one that is not fitted", "call fit(biased, reference) first")
