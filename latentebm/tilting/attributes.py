"""Tilt a model to wanted shares of attributes, with no reference set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latentebm import processes
from latentebm.checks import check_int, check_number, check_rng, fail
from latentebm.chunks import CHAIN_NUMBERS, chunk_size, decode_chunk, in_chunks
from latentebm.disk.walk import walked
from latentebm.models.base.abstract_tilt import Tilt
from latentebm.models.decode_time import pool_size
from latentebm.models.features import Attribute, FeatureEnergy, JointFeatures, LinearEnergy
from latentebm.models.latent_model import LatentModel, check_model
from latentebm.models.tilts import LatentTilt
from latentebm.progress import Track, silent
from latentebm.rng import stream
from latentebm.sampling.importance.moments import moment_weights
from latentebm.sampling.importance.weights import ess, normalised

__all__ = ["expected_shares", "tilt_attributes"]

FEWEST = 100  # effective draws below which a target rests on too few of them to mean anything
KNOWN_BY = 16  # draws that tell one pool from another
FIX = "ask for a smaller change, enlarge the pool, or train the model on more of what is rare"


def tilt_attributes(
    model: LatentModel,
    attributes: Attribute | Sequence[Attribute],
    *,
    pool: int | str = 50_000,
    tolerance: float = 0.01,
    generator: torch.Generator,
    track: Track = silent,
) -> LatentTilt:
    r"""Find the tilt nearest to the prior (in KL) under which every attribute has its target's shares.

    .. math:: E(z) = -\sum_j \theta_j^\top p_j(\cdot \mid x(z)), \qquad
              \theta = \arg\min_\theta\; \log E_{p_0}[e^{-E(z)}] - \sum_j \theta_j^\top t_j

    The minimum of this convex dual has :math:`E_{p_E}[p_j(\cdot \mid x)] = t_j` for all attributes at once: iterative
    proportional fitting on a pool of prior draws, solved by quasi-Newton steps. For one attribute of hard labels
    :math:`e^{-E}` is the ratio of wanted to found share.

    The energy is the user's function and θ; ``tilt.save(folder)`` keeps θ and the function's name. A function that is
    not differentiable suits every sampler but the unadjusted Langevin kernels, which need the energy's gradient.

    Arguments:
        model: anything with `latent_dim` and `decode`; it is not changed.
        attributes: one attribute, or several whose shares shall hold together.
        pool: prior draws the shares are matched on, or the time to decode them, such as ``"10min"``.
        tolerance: largest total variation of any attribute's expected shares from its target, on the pool.

    Raises:
        ValueError: attributes that don't fit the model's data, a target value that the model never produces, targets
            that no tilt can reach together, or a target that would rest on fewer than 100 effective draws.

    References:
        I-divergence geometry of probability distributions and minimization problems (Csiszár, 1975);
        On a least squares adjustment of a sampled frequency table (Deming and Stephan, 1940).

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> sign = Attribute(lambda x: x[:, 0] > 0, {False: 0.2, True: 0.8}, "sign")
        >>> rng = torch.Generator().manual_seed(0)
        >>> tilt = tilt_attributes(WrappedModel(torch.nn.Identity(), 1), sign, generator=rng)
        >>> {k: round(v, 2) for k, v in expected_shares(tilt, sign, generator=rng)["sign"].items()}
        {False: 0.2, True: 0.8}
    """
    chosen = _checked(attributes)
    check_model("model", model)
    check_rng(generator)
    check_number("tolerance", tolerance, low=0, high=1, open_low=True)
    prior = LatentTilt(model, LinearEnergy(torch.zeros(model.latent_dim)))
    phi, _ = _pool(prior, chosen, pool_size(model, pool), generator, track)
    theta = torch.from_numpy(_match(phi.numpy(), chosen, tolerance))
    linear = LinearEnergy(theta, limit=float(theta.abs().sum()))  # the features are probabilities
    return LatentTilt(model, FeatureEnergy(model, JointFeatures(chosen), linear))


def expected_shares(
    tilt: Tilt, attributes: Attribute | Sequence[Attribute], *, pool: int = 50_000, generator: torch.Generator
) -> dict[str, dict[object, float]]:
    r"""Expected shares of each attribute's values under a tilt, by self-normalised weights on fresh base draws.

    .. math:: s_{jk} = E_{p_0}[e^{-E}\, p_j(k \mid x)] \,/\, E_{p_0}[e^{-E}]

    Raises:
        ValueError: attributes that don't fit the data.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> sign = Attribute(lambda x: x[:, 0] > 0, {False: 0.5, True: 0.5}, "sign")
        >>> flat = LatentTilt(WrappedModel(torch.nn.Identity(), 1), LinearEnergy(torch.zeros(1)))
        >>> shares = expected_shares(flat, sign, generator=torch.Generator().manual_seed(0))
        >>> round(shares["sign"][True], 1)
        0.5
    """
    chosen = _checked(attributes)
    check_rng(generator)
    phi, log_weight = _pool(tilt, chosen, check_int("pool", pool), generator, silent)
    parts = _by_attribute((normalised(log_weight) @ phi).numpy(), chosen)
    return {a.name: dict(zip(a.target, s.tolist(), strict=True)) for a, s in zip(chosen, parts, strict=True)}


def _checked(attributes: Attribute | Sequence[Attribute]) -> tuple[Attribute, ...]:
    chosen = (attributes,) if isinstance(attributes, Attribute) else tuple(attributes)
    strange = [type(a).__name__ for a in chosen if not isinstance(a, Attribute)]
    if strange:
        raise fail("attributes", "an Attribute or several", strange[0], "pass Attribute(function, target, name)")
    names = [a.name for a in chosen]
    if not names or len(set(names)) < len(names):
        raise fail("attributes", "at least one, each under its own name", names, "give each a name=")
    return chosen


def _by_attribute(values: np.ndarray, attributes: tuple[Attribute, ...]) -> list[np.ndarray]:
    """Values (F,) of the joint features, cut into those of each attribute."""
    return np.split(values, np.cumsum([len(a.target) for a in attributes])[:-1])


@torch.no_grad()
def _pool(
    tilt: Tilt, attributes: tuple[Attribute, ...], size: int, generator: torch.Generator, track: Track
) -> tuple[Tensor, Tensor]:
    """Features (K, F) of fresh base draws, and their log-weights (K,)."""
    features = JointFeatures(attributes)
    chunk, at_once = chunk_size(CHAIN_NUMBERS), decode_chunk(getattr(tilt, "model", None))

    def seen(part: Tensor) -> Tensor:
        return features(tilt.decode(part)).double().cpu()

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        u = tilt.sample_base(n, generator=generator)
        phi = processes.spread(lambda own: in_chunks(seen, own, at_once), u)
        return phi, processes.spread(lambda own: -tilt.energy(own).double().cpu(), u)

    def known() -> list[Tensor]:
        some = tilt.sample_base(KNOWN_BY, generator=stream(0))
        return [features(tilt.decode(some)), tilt.energy(some), torch.tensor(size)]

    sizes = [min(chunk, size - start) for start in range(0, size, chunk)]
    phi, log_weight = zip(*walked(drawn, sizes, "pool", known, state=[generator], track=track), strict=True)
    return torch.cat(phi), torch.cat(log_weight)


def _match(phi: np.ndarray, attributes: tuple[Attribute, ...], tolerance: float) -> np.ndarray:
    """Natural parameters (F,) that give the pool's expected features their targets."""
    target = np.array([share for a in attributes for share in a.target.values()], dtype=float)
    _reachable(phi, attributes, target)

    theta, mean = moment_weights(phi, target, tolerance=tolerance)
    for a, found in zip(attributes, _by_attribute(mean, attributes), strict=True):
        distance = 0.5 * float(np.abs(found - list(a.target.values())).sum())
        if not distance <= tolerance:
            reached = ", ".join(f"{k}: {s:.3f}" for k, s in zip(a.target, found, strict=True))
            raise fail(f"{a.name} target", "shares that the model's draws can reach", f"at best {reached}", FIX)
    effective = len(phi) * float(ess(torch.from_numpy(phi @ theta)))
    if effective < FEWEST:
        got = f"{effective:.0f} of {len(phi)}"
        raise fail("target", f"one that at least {FEWEST} effective draws of the pool carry", got, FIX)
    return theta


def _reachable(phi: np.ndarray, attributes: tuple[Attribute, ...], target: np.ndarray) -> None:
    keys = [f"{a.name} {k}" for a in attributes for k in a.target]
    for key, best, mean, wanted in zip(keys, phi.max(0), phi.mean(0), target, strict=True):
        if best < wanted:
            got = f"{key}, of which {len(phi)} prior draws have at most {best:.3g} and {mean:.3g} on average"
            fix = "leave it out, or train the model on some of it"
            raise fail("target", "values that the model produces", got, fix)
