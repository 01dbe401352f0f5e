"""Chains over perceptron energies on a GPU: whole blocks of steps in one program."""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentebm.sampling.compiled.rounding import rounded

__all__ = ["GPUPerceptrons", "gpu_form"]

ROWS = 32  # chains that one program moves: few, so that few chains wait less and registers suffice
PART = 64  # units of the first hidden layer held at once, the height of a product on the matrix units
WARPS = 4
STAGES = (2, 1)  # parts of the weights under way at once, the second where shared memory is small
WIDEST = (128, 1_024, 256)  # dimensions and hidden units that a tile may have room for

Point = tuple[Tensor, Tensor, Tensor]


class GPUPerceptrons:
    r"""A potential of M perceptrons with two hidden layers, and chains over it moved by one program of the GPU.

    .. math:: U(x) = \frac sM \sum_m L \tanh\big(f_m(x) / L\big) + \frac b2 |x|^2 + c

    Each multiprocessor keeps its chains through all steps of a block; only weights and noise are read. At ``fp32`` a
    product is the sum of three TF32 products of leading and trailing parts, which is as exact as float32. The weights
    are copied: build it again after training. Get one by :func:`gpu_form`.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        limit: float | None,
        *,
        strength: float = 1.0,
        base: bool = False,
        precision: str = "fp32",
    ) -> None:
        members, self.dim, first = weights[0].shape
        self.members, self.limit, self.precision = members, limit, precision
        self.strength, self.base = strength, float(base)
        self.constant = 0.5 * self.dim * math.log(2 * math.pi) * base
        self.sizes = {"D": _size(self.dim, 16), "H1": _size(first, 64), "H2": _size(weights[1].shape[2], 64)}
        d, h1, h2 = self.sizes.values()
        into, through = _padded(weights[0], (members, d, h1)), _padded(weights[1], (members, h1, h2))
        plain = [into, into.mT.contiguous(), through, through.mT.contiguous()]
        high = [rounded(w, "bf16" if precision == "bf16" else "tf32") for w in plain]
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        W1, T1, W2, T2 = (w.to(kind) for w in high)
        B1, B2 = (_padded(b.reshape(members, -1), (members, h)) for b, h in zip(biases, (h1, h2), strict=False))
        W3, B3 = _padded(weights[2].reshape(members, -1), (members, h2)), biases[2].detach().float().reshape(-1).clone()
        # What TF32 leaves of each weight; other precisions do not read it.
        low = [w - h for w, h in zip(plain, high, strict=True)] if precision == "fp32" else [W1, T1, W2, T2]
        self.stages = STAGES[0]
        self.tensors = [W1, T1, B1, W2, T2, B2, W3, B3, *low]

    def __call__(self, x: Tensor) -> Tensor:
        """Potential (N,) of points (N, D)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Potential (N,) and its gradient (N, D) at points (N, D), NaN where either is not finite."""
        # One step that goes nowhere; what is not finite stays as it begins.
        start = (x.detach(), x.new_full((len(x),), math.nan), torch.zeros_like(x))
        point, _, _ = self.move(start, torch.zeros_like(x)[None], None, x.new_zeros(1, 2), 0)
        return point[1], point[2]

    def move(
        self, point: Point, noise: Tensor, uniform: Tensor | None, scales: Tensor, trace: int
    ) -> tuple[Point, Tensor, Tensor]:
        """Take K steps from a point; arguments and results as for `move_block`, the scales a tensor (K, 2)."""
        x, u, g = (t.clone(memory_format=torch.contiguous_format) for t in point)
        steps, n = noise.shape[:2]
        tiles = -(-n // ROWS)
        counts = x.new_zeros((tiles, 2))
        path = x.new_empty((steps, trace, self.dim) if trace else 0)
        tests = u if uniform is None else uniform.contiguous()
        moved = (x, u, g, noise.contiguous(), tests, scales.contiguous(), counts, path, *self.tensors)
        counted = (n, self.dim, steps, trace, self.members, int(uniform is not None))
        with torch.cuda.device_of(x):
            _program()[(tiles,)](
                *moved, *counted, self.strength, self.base, self.constant, self.limit or 1.0, **self._constants()
            )
        accepted, reverted = counts.sum(0)
        return (x, u, g), torch.stack([accepted, torch.zeros_like(accepted), reverted]), path

    def _constants(self) -> dict[str, Any]:
        from triton import language as tl

        kind = tl.bfloat16 if self.precision == "bf16" else tl.float32
        shape = {**self.sizes, "PART": PART, "ROWS": ROWS, "num_warps": WARPS, "num_stages": self.stages}
        flags = {"BOUNDED": self.limit is not None, "TYPE": kind, "PRECISION": self.precision}
        return {**shape, **flags}


def gpu_form(target: Any, x: Tensor, precision: str = "fp32") -> GPUPerceptrons | None:
    """The potential of a target as a program for chains at points (N, D), or None where there is no such form.

    It takes perceptrons (`FusedMLP`, `EnergyNet`) with two hidden layers, alone or as a latent tilt of any strength,
    and float32 points on an NVIDIA GPU, with Triton installed, as it comes with torch. Compiling takes some seconds,
    once for all numbers of chains, and is kept on disk.
    """
    found = _scaled(target)
    if found is None or x.dtype != torch.float32 or x.ndim != 2 or not _runs(x.device):
        return None
    (weights, biases, limit), strength, base = found
    widths = [weights[0].shape[1], *(w.shape[2] for w in weights[:-1])]
    if len(weights) != 3 or weights[0].device != x.device or any(w > m for w, m in zip(widths, WIDEST, strict=True)):
        return None
    form = GPUPerceptrons(weights, biases, limit, strength=strength, base=base, precision=precision)
    for form.stages in STAGES:
        try:
            form(x[:1])
            return form
        except Exception as error:  # noqa: BLE001 - a compiler may fail in any way, and the plain steps do as well
            reason = str(error)
    warnings.warn(f"compile: Triton failed ({reason}); the plain steps run instead", RuntimeWarning, stacklevel=2)
    return None


def _scaled(target: Any) -> tuple[Any, float, bool] | None:
    """Layers of a target, the factor of their energy, and whether the standard normal base comes on top."""
    if (layers := getattr(target, "perceptrons", None)) is not None:
        return layers, 1.0, False
    network, strength = getattr(target, "scaled_network", lambda: (None, 1.0))()
    layers = getattr(network, "perceptrons", None)
    return None if layers is None else (layers, strength, True)


@functools.cache
def _runs(device: torch.device) -> bool:
    """Whether the program runs on a device: it needs the matrix units of an NVIDIA GPU of 2020 or later."""
    ours = device.type == "cuda" and torch.version.hip is None and importlib.util.find_spec("triton") is not None
    return ours and torch.cuda.get_device_capability(device) >= (8, 0)


@functools.cache
def _program() -> Any:
    from latentebm.sampling.compiled.triton_chains import langevin_steps

    return langevin_steps


def _size(width: int, least: int) -> int:
    """The next power of two, of at least so many."""
    return max(least, 1 << (width - 1).bit_length())


def _padded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a shape with `x` in their corner: units without weights change neither value nor gradient."""
    whole = torch.zeros(shape, device=x.device)
    whole[tuple(slice(0, size) for size in x.shape)] = x.detach().float()
    return whole
