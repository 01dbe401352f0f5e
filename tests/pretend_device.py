"""A device that this machine lacks, played by the CPU, on which torch's rules of devices hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
AUTOCAST, GENERATOR = torch.autocast, torch.Generator
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}  # what takes tensors of two devices
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class DeviceGenerator(torch.Generator):
    """A random generator of the pretended device."""

    made: ClassVar[dict[int, torch.Generator]] = {}  # operations are given another object of the same address

    def __init__(self) -> None:
        self.made[self._cdata] = self

    device = property(lambda self: DEVICE)  # type: ignore[assignment]


class _Made(type):
    """What stands for torch.Generator, which cannot make one of this device."""

    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        return DeviceGenerator() if torch.device(device).type == DEVICE.type else GENERATOR(device)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, GENERATOR)


class DeviceTensor(Tensor):
    """A tensor of the pretended device: numbers on the CPU that only operations of this module reach."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> DeviceTensor:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, **layout, dtype=held.dtype, device=DEVICE)
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held!r})"

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Everything(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Tensors of plain numbers and indices of lists, made on the CPU and moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
            return func(args[0], index, *args[2:])
        if func not in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        if func is Tensor.new_tensor:
            func, device, args = torch.tensor, device or args[0].device, args[1:]
        return func(*args, **kwargs) if device is None else func(*args, **kwargs).to(device)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = list(_leaves((*args, *kwargs.values())))
    own = any(isinstance(t, DeviceTensor) for t in leaves)
    asked = kwargs.get("device")
    here = own if asked is None else torch.device(asked).type == DEVICE.type
    if func is aten.copy_.default:
        here = isinstance(args[0], DeviceTensor)
    _check(func, args, leaves, here)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if here else asked}
    made = func(*_held(args), **{name: _held(value) for name, value in kwargs.items()})
    if func.__name__.split(".")[0].endswith("_"):  # in place
        return made if made is None else args[0]
    return _wrapped(made) if here else made


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        elif isinstance(value, Tensor | torch.Generator):
            yield value


def _held(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return value.held if isinstance(value, DeviceTensor) else value


def _wrapped(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_wrapped, value))
    return DeviceTensor(value) if isinstance(value, Tensor) else value


def _check(func: Any, args: Any, leaves: list[Any], here: bool) -> None:
    kind = DEVICE.type if here else "cpu"
    if func in INDEXED and isinstance(args[0], DeviceTensor):
        leaves = [args[0], *args[2:3]]  # indices of the CPU may point into another device
    for leaf in leaves:
        if isinstance(leaf, torch.Generator):
            found = DEVICE.type if leaf._cdata in DeviceGenerator.made else "cpu"
            if found != kind:
                raise RuntimeError(f"{func}: expected a '{kind}' device type for generator but found '{found}'")
        elif here and type(leaf) is not DeviceTensor and func not in MOVES and leaf.ndim:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {kind} and cpu")


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """A block in which ``meta`` is a device of this machine, and mixing it with the CPU raises."""
    module: Any = ModuleType(f"torch.{DEVICE.type}")
    module.is_available, module.device_count, module._lazy_init = lambda: True, lambda: 1, lambda: None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(torch, DEVICE.type, module, raising=False)
        patch.setattr(torch, "Generator", _Made("Generator", (), {}))
        patch.setattr(torch, "autocast", lambda kind, *rest, **more: AUTOCAST("cpu", *rest, **more))
        with _Literals(), _Everything():
            yield DEVICE
