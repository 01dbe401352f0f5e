"""The estimator: fit a VAE to biased images, tilt it to a reference, draw."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from latentebm.checks import check_int, fail
from latentebm.choices import check_settings, chosen_method, chosen_sampler, components, kl_weight
from latentebm.chunks import in_chunks
from latentebm.data.images import as_data
from latentebm.data.imbalance import larger_reference
from latentebm.data.stored import StoredImages
from latentebm.devices import pick_device, within_memory
from latentebm.disk.manifest import as_written, load_config
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.saving import load_weights, save_model
from latentebm.models.tilts import ScaledTilt
from latentebm.models.vae import VAE
from latentebm.objectives.tilt_losses import gain
from latentebm.progress import Track, bars, silent
from latentebm.registry import stored
from latentebm.rng import seeded, stream
from latentebm.sampling import SNIS, Draws
from latentebm.sampling.split import draw_split
from latentebm.settings.declaration import described, setting
from latentebm.settings.estimator import Estimator
from latentebm.settings.fields import DebiaserSettings
from latentebm.tilting.method import TiltMethod
from latentebm.training.fit import FitResult
from latentebm.training.fit_vae import fit_vae
from latentebm.training.logs import Log, logged
from latentebm.vae_sources import Sources, choose_sources

__all__ = ["Debiaser"]

ImageData = np.ndarray | Tensor | Dataset[Any] | StoredImages


@described
@dataclass(kw_only=True, eq=False, repr=False)
class Debiaser(DebiaserSettings, Estimator):
    r"""Learns a biased generator, tilts it to a small unbiased reference, and draws from the result.

    .. math:: p_E(z) \propto e^{-E(z)}\, p_0(z), \qquad
              E = \arg\max\; -E_{q_{ref}}[E(z)] - \log Z

    In a process group of torch.distributed, entered by every process alike, the work is split: the VAE's batches, the
    members of the energy's ensemble, the pool and the chains; `latentebm.processes.solo` keeps it in one.

    A scikit-learn estimator: arguments are stored as given and checked by `fit`. `objective`, `space`, `sampler` and
    `network` are names or objects, such as ``objective=Jensen(penalty=0.25, calibrate=True)``.

    Arguments:
        {settings}

    Attributes:
        vae_: the fitted VAE.
        sources_: what it learned from, and why; see `Sources`.
        biased_: the biased images, (N, C, H, W), uint8, which a small reference's tilt starts from, of images on disk a
            random part of 32 MiB; not saved.
        energy_: the fitted energy.
        heldout_gain_: cross-validated gain of the tilt, nats per image.

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

    verbose: bool = setting(False, "show progress bars", "")

    def fit(self, biased: ImageData, reference: ImageData, *, log: Log | None = None) -> Debiaser:
        """Fit the VAE to biased images, then the tilt to reference images; labels are never needed.

        Arguments:
            biased: uint8, or float in [0, 1]; (N, H, W) or (N, C, H, W). Or a map-style Dataset of torch's or of
                Hugging Face's, or a memory-mapped array: above 256 MiB it is read batch by batch, not held.
            reference: the same kinds and shape of image, at least two; held in memory.
            log: called as training goes, with a step and numbers by name; see `latentebm.training.logs.logged`.

        Warns:
            UserWarning: a reference larger than the biased set.

        Raises:
            ValueError: a setting or an array is not as described.
        """
        self.check()
        images, wanted = as_data(biased, "biased").images, as_data(reference, "reference").whole().images
        _check_reference(wanted, tuple(images.shape[1:]))
        if larger := larger_reference(len(wanted), len(images)):
            warnings.warn(larger, stacklevel=2)
        with logged(log):
            return self.fit_vae(images, wanted).fit_tilt(wanted)

    def fit_vae(self, biased: ImageData, reference: ImageData | None = None, *, track: Track | None = None) -> Debiaser:
        """Fit the VAE alone, to biased images and, as ``learn_from`` says, to reference images too.

        Raises:
            ValueError: a setting or an array is not as described.
        """
        data, wanted = as_data(biased, "biased"), None
        if reference is not None:
            wanted = _check_reference(as_data(reference, "reference").whole().images, tuple(data.images.shape[1:]))
        self.check()

        self.biased_ = data.part(stream(self.seed, 7)).images
        self.sources_ = choose_sources(self, self.biased_, wanted)
        weight = kl_weight(self, self.sources_.learn_from, self.sources_.dispersion)
        how = {"kl_weight": weight, "components": components(self)}
        self.vae_log_ = self._train(data.images, track or self._track(), **how, **self.sources_.training())
        return self

    def _train(self, images: Tensor | StoredImages, track: Track, **more: Any) -> FitResult:
        """Fit a fresh VAE."""
        rng = stream(self.seed, 1)
        sizes: dict[str, Any] = {"network": self.network, "width": self.width, "likelihood": self.likelihood}
        with seeded(rng):
            vae = VAE(tuple(images.shape[1:]), self.latent_dim, **sizes).to(pick_device(self.device))
        recipe: dict[str, Any] = {"precision": self.precision, **more}
        passes: dict[str, Any] = {"epochs": self.epochs, "batch_size": self.batch_size}
        with within_memory(batch_size=self.batch_size, width=self.width):
            done = fit_vae(vae, images, **passes, **recipe, generator=rng, track=track)
        self.vae_ = vae.requires_grad_(False)
        return done

    def fit_tilt(self, reference: ImageData, *, track: Track | None = None) -> Debiaser:
        """Fit the tilt alone to reference images, the VAE as it is.

        Raises:
            ValueError: a setting or the array is not as described, or there is no VAE yet.
        """
        images = self._reference(reference)
        method, rng = self.check().method(), stream(self.seed, 2)
        biased = getattr(self, "biased_", None)
        if biased is None:
            fix = "fit the VAE here, or set biased_ to its training images (N, C, H, W), uint8"
            raise fail("biased_", "the images the VAE was trained on", "none, as a loaded model has none", fix)
        views = getattr(self, "sources_", Sources()).views(images, rng)
        fitted = method.fit(self.vae_, images, biased, views=views, generator=rng, track=track or self._track())
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
        return self.draw(n, generator=self._stream(3, seed), strength=strength, track=track)

    def draw(self, n: int, *, generator: torch.Generator, strength: float = 1.0, track: Track | None = None) -> Draws:
        """Draw `n` debiased images from a stream of your own; the rest is as for `sample`."""
        check_int("n", n)
        tilt = self.tilt(strength)
        draws = draw_split(chosen_sampler(self, n), tilt, n, generator=generator, track=track or self._track())
        trace = None if draws.trace is None else tilt.code(draws.trace)
        return replace(draws, x=draws.x.clamp(0, 1), latent=tilt.code(draws.latent), trace=trace)

    def sample_prior(self, n: int, *, seed: int | None = None) -> Draws:
        """Draw `n` images of the generator as it is, untilted; observed through noise where the tilted ones are.

        Raises:
            ValueError: no VAE yet, or n below one.
        """
        self._fitted("vae_")
        tilt = self.method().tilt(self.vae_, nn.Identity())
        u = tilt.sample_base(check_int("n", n), generator=self._stream(4, seed))
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
        sampler = SNIS(pool=pool or self.method().space.weighed)
        report = draw_split(sampler, self.tilt(), 1, generator=stream(self.seed, 5)).diagnostics
        return {name: report[name] for name in names}

    def gain(self, images: ImageData, *, seed: int | None = None) -> float:
        """Gain of the whole ensemble on other images, in nats an image.

        Raises:
            ValueError: not fitted yet, or the array is not as described.
        """
        tilt, method, rng = self.tilt(), self.method(), self._stream(6, seed)
        reference = method.reference_energy(tilt, self._reference(images), rng)
        with torch.no_grad():
            base = in_chunks(tilt.energy, tilt.sample_base(method.space.weighed, generator=rng))
        return float(gain(reference, base))

    def tilt(self, strength: float = 1.0) -> Tilt:
        """The fitted tilted model, its energy multiplied by a strength in [0, 1.5].

        Raises:
            ValueError: not fitted yet, or another strength.
        """
        self._fitted("energy_")
        tilt = self.method().tilt(self.vae_, self.energy_)
        return tilt if strength == 1 else ScaledTilt(tilt, strength)

    def save(self, folder: Path | str) -> Path:
        """Write the weights and ``config.json`` into a folder, all of them or none; without a tilt the VAE alone.

        Raises:
            ValueError: not fitted yet, or the folder is a run of another model or cannot be written.
        """
        self._fitted("vae_")
        modules: dict[str, nn.Module] = {"vae": self.vae_}
        if hasattr(self, "energy_"):
            modules["energy"] = self.energy_
        parameters = {name: stored(value) for name, value in self.get_params(deep=False).items()}
        sources = getattr(self, "sources_", None)
        learned = {
            "heldout_gain": getattr(self, "heldout_gain_", None),
            "sources": None if sources is None else sources.as_dict(),
        }
        return save_model(folder, parameters, modules, learned)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "auto", verbose: bool = False, **own: Any) -> Debiaser:
        """Read what `save` wrote, or a run folder, after checking every weight file's SHA-256.

        Arguments:
            folder: which was written.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``.
            verbose: show progress bars.
            own: settings that were objects of your own, by name, since files hold no code.

        Raises:
            FileNotFoundError: the folder lacks ``config.json`` or a weight file.
            ValueError: a file is not the one that was written.
        """
        config, path, there = load_config(folder), Path(folder) / "config.json", pick_device(device)
        with as_written(path):
            model, shapes = cls(**config["debiaser"]), config["models"]
        model.set_params(device=device, verbose=verbose, **own)
        with as_written(path):
            model.check()
            network = own.get("network", shapes["vae"]["network"])
            model.vae_ = VAE(**{**shapes["vae"], "network": network, "data_shape": tuple(shapes["vae"]["data_shape"])})
            if "energy" in shapes:  # else the folder was written before there was one
                model.energy_ = model.method().restored(model.vae_, shapes["energy"])
                model.heldout_gain_ = config["learned"]["heldout_gain"]
        for name in shapes:
            module = getattr(model, f"{name}_")
            load_weights(Path(folder) / f"{name}.safetensors", module)
            module.to(there).requires_grad_(False).eval()
        if sources := config["learned"].get("sources"):  # which runs of earlier versions lack
            with as_written(path):
                sources.pop("tried", None)  # which only runs of early versions have
                model.sources_ = Sources(**sources)
        return model

    def check(self) -> Debiaser:
        """Check every setting, so that a mistake is known before any work.

        Raises:
            ValueError: a setting lies outside its range.
        """
        check_settings(self)
        return self

    def method(self) -> TiltMethod:
        """How the energy is fitted, as the settings say: objects in the place of their names.

        Raises:
            ValueError: a setting lies outside its range, or two do not go together.

        Example:
            >>> Debiaser(objective="jensen", energy_penalty=0.5).method().objective
            Jensen(penalty=0.5, calibrate=False)
        """
        return chosen_method(self)

    def _stream(self, stage: int, seed: int | None) -> torch.Generator:
        return stream(self.seed if seed is None else seed, stage)

    def _track(self) -> Track:
        return bars if self.verbose else silent

    def _reference(self, reference: ImageData) -> Tensor:
        self._fitted("vae_")
        return _check_reference(as_data(reference, "reference").whole().images, self.vae_.data_shape)

    def _fitted(self, name: str) -> None:
        if not hasattr(self, name):
            raise fail("Debiaser", "a fitted model", "one that is not fitted", "call fit(biased, reference) first")


def _check_reference(images: Tensor, data_shape: tuple[int, ...]) -> Tensor:
    """Reference images that a tilt of models of this data shape can be fitted to."""
    if tuple(images.shape[1:]) != data_shape:
        raise fail("reference", f"images of shape {data_shape}", tuple(images.shape[1:]), "resize them")
    if len(images) < 2:
        raise fail("reference", "at least 2 images", len(images), "pass more reference images")
    return images
