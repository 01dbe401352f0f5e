"""Fit a joint energy-based model: a classifier that gives its own data low energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import check_points, fail
from latentebm.data.batches import Minibatches
from latentebm.devices import beside
from latentebm.ebm.check_energy import check_depends
from latentebm.objectives.contrast import contrastive_loss, jem_loss
from latentebm.progress import Track, silent
from latentebm.rng import normal
from latentebm.sampling.classifier import ClassifierChains, JointSampler
from latentebm.sampling.mcmc.persistent import PMC
from latentebm.training.fit import FitResult, fit
from latentebm.training.keep import Guard
from latentebm.training.logs import Log
from latentebm.training.optimisation import Optimisation, Schedule

__all__ = ["JEMRecipe", "fit_jem"]


@dataclass(frozen=True, kw_only=True)
class JEMRecipe(Optimisation):
    """How a classifier is fitted as a joint energy-based model; the optimizer's settings are `Optimisation`'s.

    Noise, penalty and gap are those of :class:`~latentebm.ebm.maximum_likelihood.MCMCRecipe`.
    """

    weight: float = 1.0  # of the contrast of energies beside the cross-entropy
    energy_penalty: float = 1e-4
    noise: float = 0.03
    epochs: int = 1
    batch_size: int = 100
    max_gap: float = 200.0
    lr: float = 5e-4
    schedule: Schedule = "cosine"
    clip: float | None = 1.0


def fit_jem(
    classifier: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: JEMRecipe | None = None,
    *,
    sampler: ClassifierChains,
    chains: PMC,
    generator: torch.Generator,
    track: Track = silent,
    log: Log | None = None,
) -> FitResult:
    r"""Fit a classifier to labels and, by persistent chains, to the distribution of its inputs.

    .. math:: \min_\theta\; -\overline{\log p_\theta(y \mid x)} + w \left[\overline{E_\theta(x)}
        - \overline{E_\theta(\tilde x)}\right], \quad \tilde x \text{ from the chains}

    Its chains stay in ``chains.buffer`` for drawing afterwards. Where the energies of chains and data differ too much,
    training goes back to a good state at half the learning rate.

    The classifier, (N, *event) to logits (N, C), is the network of `sampler` and is fitted in place to data (N, *event)
    with labels (N,) of 0 … C − 1; pretraining it by cross-entropy alone saves most of the time. The sampler says which
    energy is contrasted: that of a `ConditionalSampler`, with chains of every label in equal numbers, or an
    unconditional one.

    Raises:
        ValueError: the data are not floating and finite, or have no label each, or the logits do not depend on them.
        DivergedError: training went on diverging; the classifier holds its last good state.

    Example:
        >>> from latentebm.models.networks import mlp
        >>> from latentebm.sampling import ConditionalSampler, ULA
        >>> g = torch.Generator().manual_seed(0)
        >>> y = torch.arange(400) % 2
        >>> x = torch.randn(400, 1, generator=g) + 4.0 * y[:, None] - 2
        >>> net = mlp((1, 16, 2), generator=g)
        >>> sampler = ConditionalSampler(net, lambda n, g: 3 * torch.randn(n, 1, generator=g), classes=2)
        >>> chains = PMC(ULA(0.1), n_steps=5, size=200)
        >>> recipe = JEMRecipe(epochs=15, lr=0.01)
        >>> _ = fit_jem(net, x, y, recipe, sampler=sampler, chains=chains, generator=g)
        >>> (net(x).argmax(1) == y).float().mean().item() > 0.9
        True
    """
    recipe = recipe or JEMRecipe()
    x, y = check_points("x", beside(classifier, x)), beside(classifier, y)
    if len(y) != len(x):
        raise fail("y", f"{len(x)} labels", len(y), "pass one label per row of x")
    sampler.check_labels(y, len(x))
    check_depends(classifier, x[:256])
    held = chains.fill(sampler, recipe.batch_size, generator=generator)
    guard = Guard(classifier, max_gap=recipe.max_gap, extra=[held.x, held.y])
    joint = isinstance(sampler, JointSampler)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        data, labels = batch
        data = data + recipe.noise * normal(data.shape, generator, data)
        # A joint sampler draws its labels: chains of wanted ones run out.
        balanced = None if joint else torch.arange(len(data), device=data.device) % sampler.classes
        drawn = chains.sample(sampler, len(data), generator=generator, y=balanced)
        positive, negative = sampler.energy(data, labels), sampler.energy(*drawn)
        guard.observe(contrastive_loss(negative, positive))
        weights = {"weight": recipe.weight, "penalty": recipe.energy_penalty}
        return jem_loss(classifier(data), labels, positive, negative, **weights)

    batches = Minibatches(x, y, batch_size=recipe.batch_size, epochs=recipe.epochs, generator=generator)
    known: dict[str, Any] = {"guard": guard, "state": [generator], "track": track, "log": log}
    return fit(classifier, loss, batches, recipe, **known, description="JEM")
