"""A tilt seen from a normalising flow near it, as a target and as a sampler; and the flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_int, check_rng, fail
from latentebm.disk.manifest import as_written, load_config
from latentebm.disk.outputs import check_files
from latentebm.gradients import differentiate
from latentebm.models.base.abstract_tilt import Tilt, ValueAndGrad
from latentebm.models.latent_model import attempt
from latentebm.models.saving import load_weights, save_model
from latentebm.progress import Track, silent
from latentebm.rng import draw_seed, permutation, seeded
from latentebm.sampling import SNIS, Draws, WeightSums
from latentebm.sampling.draws import gather_draws
from latentebm.sampling.target import Target
from latentebm.training.fit import FitResult

__all__ = ["BakedTilt", "spline_flow"]

PER_DRAW, LEAST = 4, 10_000  # points of the flow per corrected draw, and the fewest that are weighed
MOST = 1000  # transforms
RESERVE = 0.05  # share of base draws among the flow's, which bounds the weights where the flow has no mass


def spline_flow(
    dim: int, *, transforms: int = 6, hidden: tuple[int, ...] = (128, 128), bins: int = 5, generator: torch.Generator
) -> nn.Module:
    """A neural spline flow of coupling layers, each inverted in two passes whatever the dimension.

    Layers come in pairs: a random half of the dimensions moves given the other, then the other way round. The flow
    starts as the standard normal distribution.

    Raises:
        ImportError: zuko is not installed.
        ValueError: a size below one, or more than a thousand transforms.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Example:
        >>> flow = spline_flow(3, hidden=(8,), generator=torch.Generator().manual_seed(0))
        >>> flow().sample((5,)).shape
        torch.Size([5, 3])
    """
    try:
        from zuko.flows import NSF, MaskedAutoregressiveTransform
        from zuko.nn import MaskedMLP
        from zuko.transforms import MonotonicRQSTransform
    except ImportError as error:
        raise ImportError('zuko: expected for bake, not found; pip install "latentebm[flows]"') from error
    check_int("bins", bins, low=2)
    if check_int("transforms", transforms) > MOST:
        raise fail("transforms", f"at most {MOST}", transforms, "pass for example transforms=3")
    sizes: dict[str, Any] = {"passes": 2, "hidden_features": [check_int("hidden", h) for h in hidden]}
    splines = {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)], "activation": nn.SiLU}
    with seeded(check_rng(generator)):
        flow, order = NSF(check_int("dim", dim), transforms=0), torch.arange(dim)
        for i in range(transforms):
            order = dim - 1 - order if i % 2 else torch.randperm(dim)
            flow.transform.transforms.append(MaskedAutoregressiveTransform(dim, order=order, **sizes, **splines))
    # In one dimension the splines have plain parameters in the place of networks.
    ends = [net[-1] for net in flow.modules() if isinstance(net, MaskedMLP)] or [flow]
    for parameter in (p for end in ends for p in end.parameters()):
        nn.init.zeros_(parameter)
    flow.config = {"dim": dim, "transforms": transforms, "hidden": list(hidden), "bins": bins}
    return cast(nn.Module, flow)


class BakedTilt(Tilt):
    r"""A tilt seen from a flow q near it: the same distribution, with q in the place of the base distribution.

    .. math:: p_E(u) = \frac{e^{-E(u)}\, p_0(u)}{Z} \propto w(u)\, \tilde q(u), \qquad
        w = \frac{e^{-E} p_0}{\tilde q}, \quad \tilde q = 0.95\, q + 0.05\, p_0

    It is a target like any other, whose SNIS, rejection and i-SIR propose from the flow and whose chains start there,
    and a sampler, which draws its own tilt or another one of its base space. The share of p₀ bounds the weights where
    the flow misses a part of the tilt; log Z is that of the tilt.

    Attributes:
        log_: what the flow's fit did; losses and scores in nats.

    Arguments:
        tilt: the tilt; it is not changed.
        flow: a module that returns a distribution over (dim,) when called.

    Raises:
        ValueError: a flow of another dimension, or no such module.
    """

    log_: FitResult

    def __init__(self, tilt: Tilt, flow: nn.Module) -> None:
        super().__init__()
        self.tilt, self.flow = tilt, flow
        self.dim = tilt.dim
        if not hasattr(flow, "config"):
            flow.config = {}  # type: ignore[assignment]  # one's own, which `load` takes again
        like = next(flow.parameters(), torch.empty(0))
        with torch.no_grad():
            found = attempt("flow", lambda u: flow().log_prob(u), torch.zeros(2, tilt.dim).to(like), self._fix())
        if tuple(found.shape) != (2,) or tuple(flow().event_shape) != (tilt.dim,):
            raise fail("flow", f"one of dimension {tilt.dim}", tuple(flow().event_shape), self._fix())

    def _fix(self) -> str:
        return f"pass for example spline_flow({self.dim}, generator=…)"

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the flow, a share of 0.05 of the tilt's own base, in random order."""
        own = round(RESERVE * n) if n > 1 else 0
        with torch.no_grad():
            base = self.tilt.sample_base(own, generator=generator)
            u = torch.cat([self._flow_points(n - own, generator).to(base), base])
        return u[permutation(n, generator, u.device)]

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of those points."""
        own = self.tilt.log_base(u)
        return torch.logaddexp(self.flow().log_prob(u) + math.log1p(-RESERVE), own + math.log(RESERVE))

    def energy(self, u: Tensor) -> Tensor:
        r"""Energy (N,) against the flow, :math:`-\log w`, nats."""
        return self.tilt.potential(u) + self.log_base(u)

    def potential(self, u: Tensor) -> Tensor:
        """The tilt's own potential (N,)."""
        return self.tilt.potential(u)

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The tilt's own potential (N,) and its gradient (N, dim)."""
        own = cast(ValueAndGrad | None, self.fast or self.tilt.value_and_grad)
        return own(u) if own else differentiate(self.tilt.potential, u)

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of its own."""
        return self._over(form(self.tilt))

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.tilt.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        return self.tilt.decode(u)

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator) -> Draws:
        """Draw `n` points of the flow as they are, uncorrected: as good as its fit."""
        u = self._flow_points(check_int("n", n), check_rng(generator))
        return gather_draws(self.tilt, u, {"sampler": "flow"})

    @torch.no_grad()
    def draw(self, tilt: Target, n: int, *, generator: torch.Generator, track: Track = silent) -> Draws:
        """Draw `n` points of a tilt of this base space, by resampling four times as many points of the flow.

        Returns:
            Draws with the diagnostics of SNIS, ``ess`` being a share of the flow's points.

        Raises:
            ValueError: a tilt of another dimension, or what `SNIS` refuses.
        """
        target = self if tilt is self.tilt or tilt is self else BakedTilt(cast(Tilt, tilt), self.flow)
        pool = max(LEAST, PER_DRAW * check_int("n", n))
        draws = SNIS(pool=pool).draw(target, n, generator=generator, track=track)
        u = draws.latent
        log_weight = draws.log_weight + target.log_base(u) - target.tilt.log_base(u)
        return replace(draws, log_weight=log_weight, diagnostics={**draws.diagnostics, "sampler": "baked"})

    def weigh(self, pool: int = 50_000, *, generator: torch.Generator) -> dict[str, float | int | bool]:
        """Health of the weights over a pool of the flow's points: ``ess``, ``pareto_k``, ``log_z``, ``reliable``."""
        sums = WeightSums(check_int("pool", pool))
        with torch.no_grad():
            for part in self.sample_base(pool, generator=check_rng(generator)).split(LEAST):
                sums.add(-self.energy(part))
        return sums.report()

    def arguments(self) -> dict[str, Any]:
        """The tilt, and the sizes and weights of the flow; one's own flow is refused."""
        if not self.flow.config:
            got, fix = f"one's own, {type(self.flow).__name__}", "keep it by save_flow, and the tilt by tilt.save"
            raise fail("flow", "a spline_flow, which can be built again", got, fix)
        return {"tilt": self.tilt, "sizes": self.flow.config, "weights": self.flow.state_dict()}

    @classmethod
    def from_config(cls, arguments: dict[str, Any]) -> BakedTilt:
        """The tilt seen from the flow that `arguments` described."""
        flow = spline_flow(**arguments["sizes"], generator=torch.Generator())
        flow.load_state_dict(arguments["weights"])
        like = next(arguments["tilt"].parameters(), torch.empty(0))
        return cls(arguments["tilt"], flow.to(like.device).requires_grad_(False).eval())

    def save_flow(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the flow's weights, one's own too, and ``config.json`` into a folder; `save` writes the tilt as well.

        Raises:
            ValueError: the folder holds a ``config.json`` already.
            OSError: the folder cannot be written.
        """
        check_files([Path(folder) / "config.json"], overwrite)
        return save_model(folder, {}, {"flow": self.flow}, {"dim": self.dim})

    @classmethod
    def load(cls, folder: Path | str, tilt: Tilt, *, flow: nn.Module | None = None) -> BakedTilt:
        """Read a flow that `save_flow` wrote.

        Arguments:
            folder: which was written.
            tilt: the tilt it was baked from.
            flow: your own flow, of the same form, where one was passed to `bake`, since files hold no code.

        Raises:
            FileNotFoundError: the folder lacks a file.
            ValueError: a file is not the one that was written, or the flow is of another dimension.
        """
        config = load_config(folder)
        with as_written(Path(folder) / "config.json"):
            sizes = config["models"]["flow"]
            if flow is None and sizes == {}:
                raise fail("flow", "the form of your own flow", "None", "pass load(…, flow=one of the same sizes)")
            flow = spline_flow(**sizes, generator=torch.Generator()) if flow is None else flow
            load_weights(Path(folder) / "flow.safetensors", flow)
            like = next(tilt.parameters(), torch.empty(0))
            return cls(tilt, flow.to(like.device).requires_grad_(False).eval())

    def _flow_points(self, n: int, generator: torch.Generator) -> Tensor:
        with seeded(draw_seed(generator)):
            return cast(Tensor, self.flow().sample((n,)))
