"""StyleGAN generators, from their codes z or from the intermediate codes w."""

from __future__ import annotations

from typing import Literal

from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.adapters.style_codes import StyleCodes, fit_gaussian
from latentebm.checks import check_choice, check_number, fail

__all__ = ["from_stylegan"]


def from_stylegan(
    G: nn.Module, *, truncation_psi: float = 1.0, space: Literal["z", "w"] = "z", batch_size: int = 32
) -> WrappedModel:
    r"""A StyleGAN, or any module with ``mapping`` and ``synthesis``, with noise that is held still.

    .. math:: x = \mathrm{synthesis}(\mathrm{mapping}(z)) \quad\text{or}\quad x = \mathrm{synthesis}(\bar w + C^{1/2} z)

    In ``"w"`` a Gaussian is fitted to 10,000 mapped codes: w is smoother to move in, but the base distribution is only
    near the generator's own. ``model.error`` says how near: the mean Kolmogorov distance over 64 random projections,
    from 0 to 1.

    Arguments:
        G: with ``z_dim``, ``num_ws``, ``mapping(z, c, truncation_psi=…)`` and ``synthesis(w, noise_mode=…)``.
        truncation_psi: pulls w towards its mean, 1 for not at all.
        space: ``z`` or ``w``.
        batch_size: images made at once.

    Raises:
        ValueError: a module without these parts, or another space.

    References:
        A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019),
        https://arxiv.org/abs/1812.04948

    Example:
        >>> import torch
        >>> class Tiny(nn.Module):
        ...     z_dim, num_ws = 2, 3
        ...     def mapping(self, z, c, truncation_psi=1.0): return truncation_psi * z[:, None].repeat(1, 3, 1)
        ...     def synthesis(self, w, noise_mode): return w.sum((1, 2)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        >>> model = from_stylegan(Tiny(), space="w")
        >>> model.decode(torch.zeros(2, 2)).shape, model.error < 0.02
        (torch.Size([2, 3, 4, 4]), True)
    """
    check_choice("space", space, ("z", "w"))
    if missing := [name for name in ("mapping", "synthesis", "z_dim", "num_ws") if not hasattr(G, name)]:
        raise fail("G", "mapping, synthesis, z_dim and num_ws", f"{type(G).__name__} without {missing[0]}", "wrap it")
    style = StyleCodes(G, check_number("truncation_psi", truncation_psi)).eval().requires_grad_(False)
    dim, error = int(G.z_dim), 0.0  # type: ignore[arg-type]
    if space == "w":
        dim, error = fit_gaussian(style, dim)
    settings = {"truncation_psi": truncation_psi, "space": space}
    model = WrappedModel(style, dim, batch_size=batch_size, settings=settings)
    model.error = error  # type: ignore[assignment]
    return model
