"""The variational autoencoder whose prior is tilted, and one that is told the class of each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from latentebm.checks import check_choice, check_event, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.models.base.mixture_prior import MixturePrior
from latentebm.models.likelihoods import LIKELIHOODS
from latentebm.models.networks import Network, make_network
from latentebm.registry import stored
from latentebm.rng import normal

__all__ = ["VAE", "ConditionalVAE"]

LAYERS = 8  # images' worth of numbers that a likelihood and its gradient hold


class VAE(nn.Module):
    r"""Variational autoencoder with a standard normal prior and a diagonal Gaussian encoder.

    .. math:: \mathrm{ELBO}(x) = E_{q(z|x)}[\log p(x|z)] - \mathrm{KL}(q(z|x)\,\|\,N(0, I))

    Once it is trained, new codes may be drawn from a learned prior, its `prior` of so many `components`, instead; 0
    stands for none.

    The images (C, H, W) have pixels in [0, 1], the codes `latent_dim` numbers; the network is ``mlp`` or ``conv``, of
    `width` hidden units, or a `Network`, the likelihood ``bernoulli`` or ``gaussian``.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Example:
        >>> vae = VAE((1, 8, 8), latent_dim=2, width=16)
        >>> vae.decode(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        data_shape: tuple[int, ...] = (1, 28, 28),
        latent_dim: int = 2,
        *,
        network: str | Network | Mapping[str, Any] = "mlp",
        width: int = 512,
        likelihood: str = "bernoulli",
        components: int = 0,
    ) -> None:
        super().__init__()
        check_choice("likelihood", likelihood, LIKELIHOODS)
        self.data_shape = tuple(check_int("data_shape", s) for s in data_shape)
        self.latent_dim = check_int("latent_dim", latent_dim)
        self.config: dict[str, Any] = {
            "data_shape": list(self.data_shape),
            "latent_dim": latent_dim,
            "network": stored(network),
            "width": check_int("width", width),
            "likelihood": likelihood,
            "components": check_int("components", components, low=0),
        }
        self.likelihood = LIKELIHOODS[likelihood]()
        self.network = make_network(network, width)
        self.encoder = self.network.encoder(self.data_shape, 2 * latent_dim)
        self.decoder = self.network.decoder(latent_dim, self.data_shape)
        self.prior = MixturePrior(latent_dim, components) if components else None

    def set_prior(self, prior: MixturePrior | None) -> None:
        """Draw new codes from a learned prior from now on, or with None from N(0, I)."""
        self.prior = prior
        self.config["components"] = 0 if prior is None else len(prior.share)

    def posterior(self, x: Tensor) -> Independent:
        """Encoder distribution q(z|x) of images (N, *data_shape): event shape (d,)."""
        return Independent(Normal(*self.moments(x)), 1)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N, d) of q(z|x) of images (N, *data_shape)."""
        check_event("x", x, self.data_shape)
        mean, log_variance = self.encoder(x).float().chunk(2, dim=-1)
        # Variances are held within [6e-6, 150], which holds those of every trained posterior.
        return mean, (log_variance.clamp(-12, 5) / 2).exp()

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None, chunk: int | None = None) -> Tensor:
        """Codes (N, d) of images: one posterior draw each with a `generator`, the posterior means without."""
        with torch.no_grad():
            mean, scale = in_chunks(lambda part: torch.stack(self.moments(part)), x, chunk, dim=1)
        return mean if generator is None else mean + scale * normal(mean.shape, generator, mean)

    def decode(self, z: Tensor, *, chunk: int | None = None) -> Tensor:
        """Mean images (N, *data_shape) of codes (N, d); with gradient only where the codes ask for one."""
        check_event("z", z, (self.latent_dim,))
        with torch.set_grad_enabled(torch.is_grad_enabled() and z.requires_grad):
            return self._means(z, chunk)

    def _means(self, inputs: Tensor, chunk: int | None) -> Tensor:
        size = chunk or chunk_size(math.prod(self.data_shape), inputs.device)
        return in_chunks(lambda part: self.likelihood.mean(self.decoder(part)).contiguous(), inputs, size)

    def logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decoder output (N, *data_shape) of codes (N, d); labels serve a `ConditionalVAE` only."""
        return self.decoder(z)

    def loss(
        self,
        x: Tensor,
        *,
        generator: torch.Generator,
        kl_weight: float = 1.0,
        autocast: bool = False,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Negative ELBO (N,) in nats of images (N, *data_shape), by one reparametrised draw each.

        With `autocast` the networks run in bfloat16, the sums in float32. The labels (N,) serve a `ConditionalVAE`.
        """
        narrow = partial(torch.autocast, x.device.type, torch.bfloat16, enabled=autocast)
        with narrow():
            z, kl = self.coded(x, generator=generator)
        return kl_weight * kl - self._log_likelihood(x, z, labels, narrow)

    def coded(self, x: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One reparametrised draw (N, d) of each image's q(z|x), and KL(q(z|x) || N(0, I)), (N,), nats."""
        mean, scale = self.moments(x)
        z = mean + scale * normal(mean.shape, generator, mean)
        # In closed form: no sampling noise, and cheaper than the general formula.
        return z, 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(1)

    def _log_likelihood(
        self, x: Tensor, z: Tensor, labels: Tensor | None, narrow: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """Of images (N,) given their codes; of large images a few at once, since their gradients take memory."""
        size = chunk_size(LAYERS * math.prod(self.data_shape), x.device)
        known = repeat(None) if labels is None else labels.split(size)
        found = []
        for images, codes, label in zip(x.split(size), z.split(size), known, strict=False):
            with narrow():
                logits = self.logits(codes, label)
            found.append(self.likelihood.log_prob(images, logits.float()))
        return torch.cat(found)


class ConditionalVAE(VAE):
    r"""VAE whose decoder sees the class: an oracle for comparisons, since it needs every label.

    .. math:: p(x|y) = \int p(x|z, y)\, N(z; 0, I)\, dz

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015),
        https://papers.nips.cc/paper/5775

    Example:
        >>> vae = ConditionalVAE((1, 8, 8), 2, n_classes=3, width=16)
        >>> vae.decode(torch.zeros(4, 2), labels=torch.tensor([0, 1, 2, 0])).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, data_shape: tuple[int, ...], latent_dim: int, *, n_classes: int, **settings: Any) -> None:
        super().__init__(data_shape, latent_dim, **settings)
        self.n_classes = check_int("n_classes", n_classes)
        self.decoder = self.network.decoder(latent_dim + n_classes, self.data_shape)

    def logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Decoder output (N, *data_shape) of codes (N, d) and their classes (N,)."""
        return self.decoder(self._inputs(z, labels))

    @torch.no_grad()
    def decode(self, z: Tensor, *, chunk: int | None = None, labels: Tensor | None = None) -> Tensor:
        """Mean images (N, *data_shape) of codes (N, d) and their classes (N,), without gradient."""
        check_event("z", z, (self.latent_dim,))
        return self._means(self._inputs(z, labels), chunk)

    def _inputs(self, z: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise fail("labels", "the class of each code", "None", "pass labels")
        return torch.cat([z, F.one_hot(labels, self.n_classes).to(z)], 1)
