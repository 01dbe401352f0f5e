"""Tilts whose energy reads the data: in the model's base space, or in the data's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.base.code_tilt import CodeTilt
from latentebm.models.base.mixture_prior import learned_prior
from latentebm.models.likelihoods import Gaussian
from latentebm.models.vae import VAE
from latentebm.rng import normal

__all__ = ["DataTilt", "ElboTilt"]

IMAGE = 28 * 28  # numbers of an item whose shape the model does not say


class DataTilt(CodeTilt):
    r"""A model's data distribution tilted by an energy of the data, sampled in its base space.

    .. math:: p_E(x) \propto e^{-E(x)}\, p_\phi(x), \qquad
              p_E(u) \propto e^{-E(x(u))}\, p_0(z)\, N(\epsilon; 0, I), \quad u = (z, \epsilon), \quad
              x(u) = \mu(z) + \sigma\,\epsilon

    With `noise` the base point holds the observation noise beside the code, and the tilt is exact for the VAE's
    marginal. Without it the data are the decoder's means and u = z. Bernoulli pixels are on where
    :math:`\Phi(\epsilon_j)` is below their mean; the gradient passes through that step as if it were the mean, so that
    Metropolis-adjusted kernels stay exact and unadjusted ones are approximate.

    Model, energy and transform are as for :class:`~latentebm.models.tilts.LatentTilt`, but the energy maps data
    (N, *data_shape) to (N,), and with `noise` the model needs the likelihood of a VAE.

    References:
        VAEBM: A Symbiosis between Variational Autoencoders and Energy-based Models (Xiao et al., 2021),
        https://arxiv.org/abs/2010.00654

    Example:
        >>> from latentebm.models.data_energies import DataEnergy
        >>> tilt = DataTilt(VAE((1, 8, 8), 2, width=16), DataEnergy((1, 8, 8)), noise=True)
        >>> u = tilt.sample_base(5, generator=torch.Generator().manual_seed(0))
        >>> u.shape, tilt.decode(u).shape, tilt.energy(u).shape
        (torch.Size([5, 66]), torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self,
        model: VAE,
        energy: nn.Module,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        noise: bool = False,
    ) -> None:
        super().__init__()
        if noise and not hasattr(model, "likelihood"):
            expected, got = "a likelihood of its data for noise=True", f"{type(model).__name__} without one"
            raise fail("model", expected, got, "pass noise=False")
        self.model = model
        self.net = energy
        self.transform = transform
        self.noise = noise
        self.dim = model.latent_dim + (math.prod(model.data_shape) if noise else 0)

    def arguments(self) -> dict[str, Any]:
        """Model, energy, transform and noise."""
        return {"model": self.model, "energy": self.net, "transform": self.transform, "noise": self.noise}

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,) of base points (N, dim), nats."""
        return self._in_chunks(lambda part: self.data_energy(self._decode(part)), u)

    def data_energy(self, x: Tensor) -> Tensor:
        """Tilt energy (N,) of data (N, *data_shape), nats."""
        energy = cast(Tensor, self.net(x))
        return energy if self.transform is None else self.transform(energy)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points: means, or noisy observations."""
        return self._in_chunks(self._decode, u)

    def code(self, u: Tensor) -> Tensor:
        """The codes (…, d) that base points (…, dim) hold."""
        return u[..., : self.model.latent_dim]

    def _in_chunks(self, function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
        shape = getattr(self.model, "data_shape", (IMAGE,))
        return in_chunks(function, u, chunk_size(math.prod(shape), u.device))

    def _decode(self, u: Tensor) -> Tensor:
        check_event("u", u, (self.dim,))
        mean = self.model.decode(self.code(u))
        if not self.noise:
            return mean
        noise = u[:, self.model.latent_dim :].unflatten(1, self.model.data_shape)
        return self.model.likelihood.observe(mean, noise)


class ElboTilt(Tilt):
    r"""A data tilt seen in the data's own space, the model's density replaced by its evidence lower bound.

    .. math:: \log p_\phi(x) \approx \mathrm{ELBO}(x) = \frac1S \sum_s \log p(x|z_s) - \mathrm{KL}(q(z|x)\,\|\,p_0),
              \quad z_s = \mu_q(x) + \sigma_q(x)\,\xi_s

    Langevin chains over it start at draws of the VAE and follow
    :math:`x' = x - \eta\nabla(E - \mathrm{ELBO})(x) + \sqrt{2\eta}\,\xi`. The noises come in pairs
    :math:`\pm\xi_s` and are drawn once, so that the bound is one fixed function of x; up to a constant it is
    exact where the decoder is linear and the encoder the true posterior.
    Steps must be small against the observation variance.

    The data tilt has observation noise over a Gaussian likelihood, since Bernoulli pixels have no density; the number S
    of posterior `draws` is even.

    Example:
        >>> from latentebm.models.data_energies import DataEnergy
        >>> vae, rng = VAE((1, 4, 4), 2, width=16, likelihood="gaussian"), torch.Generator().manual_seed(0)
        >>> tilt = ElboTilt(DataTilt(vae, DataEnergy((1, 4, 4)), noise=True), generator=rng)
        >>> tilt.potential(tilt.sample_base(3, generator=rng)).shape
        torch.Size([3])
    """

    noise: Tensor

    def __init__(self, tilt: DataTilt, *, draws: int = 8, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(tilt.model.likelihood, Gaussian):
            got = type(tilt.model.likelihood).__name__
            raise fail("likelihood", "Gaussian, whose pixels have a density", got, "sample in the base space instead")
        if not tilt.noise:
            raise fail("tilt", "a DataTilt with noise=True", "one without noise", "pass noise=True")
        if check_int("draws", draws, low=2) % 2:
            raise fail("draws", "an even number", draws, f"pass {draws + 1}")
        self.tilt = tilt
        self.dim = math.prod(tilt.model.data_shape)
        half = normal((draws // 2, tilt.model.latent_dim), generator, next(tilt.parameters()))
        self.register_buffer("noise", torch.cat([half, -half]))

    def arguments(self) -> dict[str, Any]:
        """Tilt and noises."""
        return {"tilt": self.tilt, "noise": self.noise}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ElboTilt:
        """A tilt with the given noises (S, d)."""
        made = cls(config["tilt"], draws=len(config["noise"]), generator=torch.Generator())
        made.noise.copy_(config["noise"])
        return made

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) flat data of the VAE itself, noise included."""
        with torch.no_grad():
            return self.tilt.decode(self.tilt.sample_base(n, generator=generator)).flatten(1)

    def log_base(self, u: Tensor) -> Tensor:
        """Evidence lower bound (N,) of flat data, nats."""
        check_event("u", u, (self.dim,))
        x, vae = self.decode(u), self.tilt.model
        mean, scale = vae.moments(x)
        codes = mean + scale * self.noise.unsqueeze(1)
        fit = [vae.likelihood.log_prob(x, vae.decoder(z)) for z in codes]
        return torch.stack(fit).mean(0) - self._kl(mean, scale, codes)

    def _kl(self, mean: Tensor, scale: Tensor, codes: Tensor) -> Tensor:
        """KL (N,) of the posterior to the prior: in closed form to N(0, I), by posterior draws to a learned prior."""
        prior = learned_prior(self.tilt.model)
        if prior is None:
            return 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(1)
        entropy = (0.5 * math.log(2 * math.pi * math.e) + scale.log()).sum(1)
        return -entropy - torch.stack([prior.log_prob(z) for z in codes]).mean(0)

    def energy(self, u: Tensor) -> Tensor:
        """Tilt energy (N,) of flat data, nats."""
        return self.tilt.data_energy(self.decode(u))

    def decode(self, u: Tensor) -> Tensor:
        """The data (N, *data_shape) themselves."""
        return u.unflatten(1, self.tilt.model.data_shape)
