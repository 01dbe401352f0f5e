"""Perceptron energies with closed gradients: matrix products, and a program built from `perceptrons.cpp` when asked."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, fail

__all__ = ["CompiledPerceptrons", "FusedMLP", "build_program", "compiled_form", "compiled_perceptrons"]

_SOURCE = Path(__file__).with_suffix(".cpp")
PATIENCE = 60.0  # seconds that a compiler may take; one core of a busy machine takes six


class _Net(ctypes.Structure):
    """The like-named struct of the program."""

    _fields_ = (
        ("members", ctypes.c_int),
        ("layers", ctypes.c_int),
        ("width", ctypes.POINTER(ctypes.c_int)),
        *((name, ctypes.POINTER(ctypes.c_void_p)) for name in ("forward", "backward", "bias")),
        ("limit", ctypes.c_float),
    )


class FusedMLP:
    r"""Energy of a SiLU perceptron and its gradient in the input, as plain matrix products.

    .. math:: h_k = W_k a_{k-1} + b_k, \quad a_k = \mathrm{silu}(h_k), \quad
        \nabla_{a_{k-1}} E = W_k^\top (\mathrm{silu}'(h_k) \odot \nabla_{a_k} E)

    The net has linear layers with SiLU between them, the last of one output; a final flattening layer may follow. Its
    weights are copied, transposed to the layout in which the products run fastest: build it again after training.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 1), nn.Flatten(0))
        >>> energy, grad = FusedMLP(net).value_and_grad(torch.zeros(3, 2))
        >>> energy.shape, grad.shape, torch.allclose(energy, net(torch.zeros(3, 2)))
        (torch.Size([3]), torch.Size([3, 2]), True)
    """

    def __init__(self, net: nn.Sequential) -> None:
        layers = [m for m in net if not isinstance(m, nn.Flatten)]
        linear = [m for m in layers[::2] if isinstance(m, nn.Linear) and m.bias is not None]
        silu = [m for m in layers[1::2] if isinstance(m, nn.SiLU)]
        if len(layers) != 2 * len(silu) + 1 or len(linear) != len(silu) + 1 or linear[-1].out_features != 1:
            raise fail("net", "Linear, SiLU, …, Linear(·, 1)", str(net), "pass the module itself as the potential")
        self.weights = [m.weight.detach().clone() for m in linear]
        self.biases = [m.bias.detach().clone() for m in linear]
        self.transposed = [w.t().contiguous() for w in self.weights]

    def __call__(self, x: Tensor) -> Tensor:
        """Energy (N,) of points (N, D)."""
        return self._last(self._forward(x)[0])

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (N,) and its gradient (N, D) at points (N, D)."""
        active, before = self._forward(x)
        grad = self.weights[-1].expand(len(x), -1)
        for h, transposed in zip(reversed(before), reversed(self.transposed[:-1]), strict=True):
            grad = F.linear(torch.ops.aten.silu_backward(grad, h), transposed)
        return self._last(active), grad

    @property
    def perceptrons(self) -> tuple[list[Tensor], list[Tensor], float | None]:
        """Weights (1, in, out) and biases of each layer, and no limit: all that a compiled form needs."""
        return [w[None] for w in self.transposed], self.biases, None

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last layer's input, and every layer's output before its activation."""
        before: list[Tensor] = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before.append(F.linear(x, weight, bias))
            x = F.silu(before[-1])
        return x, before

    def _last(self, active: Tensor) -> Tensor:
        return torch.mv(active, self.weights[-1][0]) + self.biases[-1]


class CompiledPerceptrons:
    r"""Mean energy of M SiLU perceptrons and its gradient in the input, in one call on the processor.

    .. math:: E(x) = \frac1M \sum_m L \tanh(f_m(x) / L), \quad f_m \text{ linear layers with SiLU between them}

    The weights are copied: build it again after training. Get one by :func:`compiled_perceptrons`, from float32 weights
    (M, in, out) and M · out biases of each layer, the last of one output, and the bound L in nats or None.

    Example:
        >>> energy = compiled_perceptrons([torch.ones(1, 2, 1)], [torch.zeros(1)])
        >>> energy is None or energy.value_and_grad(torch.ones(1, 2))[1].tolist() == [[1.0, 1.0]]
        True
    """

    def __init__(
        self, library: ctypes.CDLL, weights: Sequence[Tensor], biases: Sequence[Tensor], limit: float | None
    ) -> None:
        self._call, rows = library.value_and_grad, library.rows()
        width = [weights[0].shape[1], *(w.shape[2] for w in weights)]
        self.dim = width[0]
        # Kept here, for the program holds only their addresses.
        self._tensors = [
            [_packed(w, rows) for w in weights],
            [_packed(w.mT, rows) for w in weights],
            [b.detach().flatten().clone() for b in biases],
        ]
        self._net = _Net(
            len(weights[0]),
            len(weights),
            (ctypes.c_int * len(width))(*width),
            *((ctypes.c_void_p * len(t))(*(one.data_ptr() for one in t)) for t in self._tensors),
            limit or 0.0,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Energies (N,) of points (N, D)."""
        return self.value_and_grad(x)[0]

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (N,) and their gradients (N, D) at points (N, D), computed in float32; other points are refused."""
        check_event("x", x, (self.dim,))
        if not x.is_floating_point():
            raise fail("x", "floating points", str(x.dtype), "convert them with .float()")
        points = x.detach().to("cpu", torch.float32).contiguous()
        energy, grad = points.new_empty(len(points)), torch.empty_like(points)
        places = (ctypes.c_void_p(t.data_ptr()) for t in (points, energy, grad))
        self._call(torch.get_num_threads(), ctypes.byref(self._net), ctypes.c_long(len(points)), *places)
        return energy.to(x), grad.to(x)


def compiled_perceptrons(
    weights: Sequence[Tensor], biases: Sequence[Tensor], limit: float | None = None, *, warn: bool = False
) -> CompiledPerceptrons | None:
    """The energies as a program, or None where they are not float32 on the processor or nothing can be built.

    Building takes under a second, once per process; with `warn` a compiler that fails is said.

    Example:
        >>> compiled_perceptrons([torch.ones(1, 2, 1, dtype=torch.float64)], [torch.zeros(1)]) is None
        True
    """
    _check_layers(weights, biases)
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (*weights, *biases)):
        return None
    program = build_program()
    if warn and isinstance(program, str):
        warnings.warn(f"compile: {program}; torch.compile takes its place", RuntimeWarning, stacklevel=2)
    return CompiledPerceptrons(program, weights, biases, limit) if isinstance(program, ctypes.CDLL) else None


def compiled_form(target: Any, *, warn: bool = False) -> Any:
    """A target, or a perceptron energy, with its perceptrons as a compiled program; None where there is no such form.

    A perceptron energy says its layers by ``perceptrons``; a tilt is built again by ``with_energy``.
    """
    if (layers := getattr(target, "perceptrons", None)) is not None:
        return compiled_perceptrons(*layers, warn=warn)
    again: Callable[..., Any] = getattr(target, "with_energy", lambda form: None)
    return again(lambda part: getattr(compiled_form(part, warn=warn), "value_and_grad", None))


def _check_layers(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    # The program believes the widths it is told, and would read beyond a tensor that is shorter.
    ok = len(weights) == len(biases) > 0 and all(w.ndim == 3 and w.numel() for w in weights)
    ok = ok and weights[-1].shape[2] == 1 and all(a.shape[::2] == b.shape[:2] for a, b in itertools.pairwise(weights))
    if not ok or any(b.numel() != w.shape[0] * w.shape[2] for w, b in zip(weights, biases, strict=True)):
        got = ", ".join(str(tuple(t.shape)) for t in (*weights, *biases))
        expected = "weights (M, in, out), the last of one output, and M · out biases per layer"
        raise fail("weights", expected, got or "no layers", "let each layer take what the one below gives")


@functools.cache
def build_program() -> ctypes.CDLL | str | None:
    """The program, built for this very processor and for this process alone; what failed; None without a compiler."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            built = Path(folder) / "perceptrons.so"
            # CXX may hold words before the compiler's name, such as ccache.
            command = [*shlex.split(compiler), "-std=c++17", "-O3", "-shared", "-fPIC", "-w", "-o", str(built)]
            for flags in (["-march=native", "-fopenmp"], []):  # some compilers know neither
                # The compiler is the user's own, its arguments are ours.
                form: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "check": False}
                done = subprocess.run([*command, str(_SOURCE), *flags], timeout=PATIENCE, **form)  # noqa: S603
                if done.returncode == 0:
                    return ctypes.CDLL(str(built))
            return f"{compiler} failed: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    except subprocess.TimeoutExpired:
        return f"{compiler} was not done after {PATIENCE} s"
    except (OSError, ValueError) as error:  # ValueError: quotes in CXX that do not close
        return str(error)


def _packed(weight: Tensor, rows: int) -> Tensor:
    """Weights (M, in, out) as runs of outputs, the longest of rows, 4, 2, 1 that fits, each input by input."""
    runs, start, n_out = [], 0, weight.shape[2]
    while start < n_out:
        length = next(r for r in (rows, 4, 2, 1) if start + r <= n_out)
        runs.append(weight.detach()[:, :, start : start + length].flatten(1))
        start += length
    return torch.cat(runs, 1).contiguous()
