"""Tilts made of tilts: the product of two, and the inverse of one; ``&``, ``~`` and ``*`` of tilts make them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentebm.checks import check_number, fail
from latentebm.gradients import differentiate
from latentebm.models.base.abstract_tilt import Tilt, ValueAndGrad, log_normal
from latentebm.models.data_tilts import DataTilt
from latentebm.models.storage.tilt_folder import model_of
from latentebm.models.tilts import LatentTilt, ScaledTilt
from latentebm.rng import stream

__all__ = ["NegatedTilt", "ProductTilt", "is_bounded"]

PROBED = 8  # base points at which two base distributions are compared
GRID = 1_001  # energies within a network's limit at which a transform of them is looked at


class ProductTilt(Tilt):
    r"""Two tilts of one model at once: their energies add.

    .. math:: p(u) \propto e^{-E_A(u) - E_B(u)}\, p_0(u)

    Either may be a latent or a data tilt, of a reference, of attributes, scaled or itself composed. Where one has a
    longer base space, since its data carry observation noise, the other's energy reads the codes in it and the longer
    one decodes.

    Raises:
        ValueError: tilts of different models or base distributions.

    References:
        Compositional Visual Generation with Energy Based Models (Du et al., 2020), https://arxiv.org/abs/2004.06030

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> model = WrappedModel(nn.Identity(), 1)
        >>> low, near = LatentTilt(model, nn.Flatten(0)), LatentTilt(model, lambda z: z.square().sum(1))
        >>> (low & near * 0.5).energy(torch.tensor([[3.0]]))
        tensor([7.5000])
    """

    def __init__(self, first: Tilt, second: Tilt) -> None:
        super().__init__()
        for tilt in (first, second):
            if not isinstance(tilt, Tilt):
                raise fail("tilt", "a tilt on both sides of &", type(tilt).__name__, "pass for example a LatentTilt")
        if model_of(first) is not model_of(second):
            got = f"{type(model_of(first)).__name__} and another {type(model_of(second)).__name__}"
            raise fail("tilt", "tilts of one and the same model object", got, "build both over it")
        self.parts = nn.ModuleList((first, second) if first.dim >= second.dim else (second, first))
        self.dim = self.base.dim
        self._check_bases()

    def arguments(self) -> dict[str, Any]:
        """Both tilts."""
        return {"first": self.parts[0], "second": self.parts[1]}

    @property
    def base(self) -> Tilt:
        """The part whose base space is the longer one."""
        return cast(Tilt, self.parts[0])

    def _check_bases(self) -> None:
        u, narrow = self.base.sample_base(PROBED, generator=stream(0)), cast(Tilt, self.parts[1])
        inside = u if narrow.dim == self.dim else self.base.code(u)
        if inside.shape[1] != narrow.dim:
            got = f"{self.dim} and {narrow.dim}"
            fix = "combine tilts with the same noise setting, or a latent tilt with either"
            raise fail("tilt", "base dimensions that are equal, or one the code's", got, fix)
        wanted = self.base.log_base(u) - log_normal(u[:, narrow.dim :])  # what is beside the code is noise
        if not torch.allclose(narrow.log_base(inside), wanted, atol=1e-3):
            raise fail("tilt", "one base distribution", "two different ones", "combine tilts of one base space")

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the longer base distribution."""
        return self.base.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the longer base distribution."""
        return self.base.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Sum of the energies (N,), nats."""
        first, second = (part.energy(self._inside(part, u)) for part in self._tilts())
        return first + second

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The potential (N,) and its gradient (N, dim), each part's in its own form."""
        return (self.fast or self._joined([_own(part) for part in self._tilts()]))(u)

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of its parts, as far as they have one."""
        forms = [form(part) for part in self._tilts()]
        if not any(forms):
            return None
        return self._over(self._joined([f or _own(part) for f, part in zip(forms, self._tilts(), strict=True)]))

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.base.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points, as the tilt of the longer base space decodes them."""
        return self.base.decode(u)

    def _tilts(self) -> list[Tilt]:
        return [cast(Tilt, part) for part in self.parts]

    def _inside(self, part: Tilt, u: Tensor) -> Tensor:
        return u if part.dim == self.dim else self.base.code(u)

    def _joined(self, forms: list[ValueAndGrad]) -> ValueAndGrad:
        def value_and_grad(u: Tensor) -> tuple[Tensor, Tensor]:
            base, base_grad = differentiate(self.base.log_base, u)
            value, grad = -base, -base_grad
            for part, form in zip(self._tilts(), forms, strict=True):
                inside, pull = cast(Any, torch.func.vjp(partial(self._inside, part), u.detach()))
                energy, slope = _energy_and_grad(part, form, inside)
                value, grad = value + energy, grad + pull(slope)[0]
            return value, grad

        return value_and_grad


class NegatedTilt(Tilt):
    r"""A tilt away from what another one favours: its energy with the opposite sign.

    .. math:: p(u) \propto e^{E(u)}\, p_0(u)

    An energy without an upper bound has no such tilt: its weights would grow without end. Energies of networks with a
    `limit`, and of attributes, are bounded; for another one `bound` asserts it, and every evaluation checks it.

    Arguments:
        tilt: any tilt; it is not changed.
        bound: an upper bound of its energy, nats; None where its network is known to have one.

    Raises:
        ValueError: an energy that is not known to be bounded, or one above the asserted bound.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.energies import EnergyNet
        >>> tilt = LatentTilt(WrappedModel(nn.Identity(), 2), EnergyNet(2, limit=5.0))
        >>> away, z = ~tilt, torch.ones(3, 2)
        >>> torch.equal(away.energy(z), -tilt.energy(z))
        True
        >>> ~LatentTilt(tilt.model, EnergyNet(2))
        Traceback (most recent call last):
        ValueError: tilt: expected an energy with a known upper bound, got LatentTilt of EnergyNet without one; ...
    """

    def __init__(self, tilt: Tilt, *, bound: float | None = None) -> None:
        super().__init__()
        self.bound = None if bound is None else check_number("bound", bound)
        if bound is None and not is_bounded(tilt):
            net = f" of {type(tilt.net).__name__}" if hasattr(tilt, "net") else ""
            got, fix = f"{type(tilt).__name__}{net} without one", "pass NegatedTilt(tilt, bound=…), or give it a limit"
            raise fail("tilt", "an energy with a known upper bound", got, fix)
        self.tilt = tilt
        self.dim = tilt.dim

    def arguments(self) -> dict[str, Any]:
        """Tilt and bound."""
        return {"tilt": self.tilt, "bound": self.bound}

    def sample_base(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Draw (n, dim) points of the tilt's own base distribution."""
        return self.tilt.sample_base(n, generator=generator)

    def log_base(self, u: Tensor) -> Tensor:
        """Log-density (N,) of the tilt's own base distribution."""
        return self.tilt.log_base(u)

    def energy(self, u: Tensor) -> Tensor:
        """Energy (N,) of the opposite sign, nats."""
        return -self._checked(self.tilt.energy(u))

    def value_and_grad(self, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""The potential :math:`-E - \log p_0` (N,) and its gradient (N, dim)."""
        return (self.fast or self._negated(_own(self.tilt)))(u)

    def with_energy(self, form: Callable[[Any], ValueAndGrad | None]) -> Tilt | None:
        """This tilt over another form of the one that it negates."""
        fast = form(self.tilt)
        return None if fast is None else self._over(self._negated(fast))

    def code(self, u: Tensor) -> Tensor:
        """The model's codes that base points hold."""
        return self.tilt.code(u)

    def decode(self, u: Tensor) -> Tensor:
        """Data (N, *data_shape) of base points."""
        return self.tilt.decode(u)

    def _negated(self, form: ValueAndGrad) -> ValueAndGrad:
        def value_and_grad(u: Tensor) -> tuple[Tensor, Tensor]:
            base, base_grad = differentiate(self.log_base, u)
            energy, grad = _energy_and_grad(self.tilt, form, u)
            return -self._checked(energy) - base, -grad - base_grad

        return value_and_grad

    def _checked(self, energy: Tensor) -> Tensor:
        if self.bound is not None and not torch.compiler.is_compiling() and bool((energy > self.bound).any()):
            got = f"{float(energy.max()):.4g}"
            raise fail("bound", f"energies up to {self.bound:g}", got, "raise the bound, if the energy has one")
        return energy


def is_bounded(tilt: Tilt) -> bool:
    """Whether a tilt's energy is known to stay between two finite bounds.

    Example:
        >>> from latentebm.adapters.from_module import WrappedModel
        >>> from latentebm.models.energies import EnergyNet
        >>> model = WrappedModel(nn.Identity(), 2)
        >>> is_bounded(LatentTilt(model, EnergyNet(2, limit=5.0))), is_bounded(LatentTilt(model, EnergyNet(2)))
        (True, False)
    """
    if isinstance(tilt, ProductTilt):
        return all(is_bounded(cast(Tilt, part)) for part in tilt.parts)
    if isinstance(tilt, NegatedTilt | ScaledTilt):
        return is_bounded(tilt.tilt)
    if type(tilt).energy not in (LatentTilt.energy, DataTilt.energy):
        return False  # a class with an energy of its own, of which nothing is known
    net = getattr(tilt, "net", None)
    while net is not None and getattr(net, "limit", None) is None:
        net = getattr(net, "energy", None)  # of features or of standardised inputs
    if net is None:
        return False
    transform = getattr(tilt, "transform", None)
    return transform is None or bool(transform(torch.linspace(-net.limit, net.limit, GRID)).isfinite().all())


def _own(tilt: Tilt) -> ValueAndGrad:
    # A user's class may set value_and_grad to None, to be differentiated.
    own = cast(ValueAndGrad | None, tilt.value_and_grad)
    return own or partial(differentiate, tilt.potential)


def _energy_and_grad(tilt: Tilt, form: ValueAndGrad, u: Tensor) -> tuple[Tensor, Tensor]:
    """A tilt's energy (N,) and its gradient, from a form of its potential."""
    value, grad = form(u)
    base, base_grad = differentiate(tilt.log_base, u)
    return value + base, grad + base_grad
