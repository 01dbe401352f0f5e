"""Objects as JSON and tensors: what they are built from, and the names of functions; never code."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.models.storage.function_text import text_digest

__all__ = ["Packer", "Unpacker", "find", "path_of"]

OWN = __name__.partition(".")[0]
MOVE = "define it with def or class at the top level of an importable module, so that it can be found again"


def path_of(name: str, value: Any) -> str:
    """Where a function or class can be imported from, as ``package.module:name``.

    Raises:
        ValueError: a lambda, a local or a bound function, or one of a script: nothing finds these again.

    Example:
        >>> path_of("features", path_of)
        'latentebm.models.storage.pieces:path_of'
        >>> path_of("features", lambda x: x)
        Traceback (most recent call last):
        ValueError: features: expected a function that can be imported, got <lambda> of ...
    """
    module, local = getattr(value, "__module__", None), getattr(value, "__qualname__", type(value).__name__)
    expected = "a function that can be imported"
    if module in (None, "__main__") or not local.isidentifier():
        raise fail(name, expected, f"{local.rpartition('.')[2]} of {module}", MOVE)
    if _named(str(module), local) is not value:
        raise fail(name, expected, f"{module}:{local}, which is another object", MOVE)
    return f"{module}:{local}"


def find(path: str, trusted: Collection[str] = ()) -> Any:
    """The function or class at ``package.module:name``; of this package, or of one that the caller trusts.

    Raises:
        ValueError: nothing is there, or the package is not trusted: importing a module runs its code.

    Example:
        >>> find("os:system")
        Traceback (most recent call last):
        ValueError: trusted: expected packages that may be imported, got os:system of another; if you trust it, ...
    """
    module, colon, name = str(path).partition(":")
    package = module.partition(".")[0]
    if package != OWN and package not in trusted:
        got = f"{path} of another"
        raise fail("trusted", "packages that may be imported", got, f'if you trust it, pass trusted=["{package}"]')
    found = _named(module, name) if colon else None
    # What a module merely imported is not its own: a folder could reach anything through it.
    if found is None or getattr(found, "__module__", None) != module:
        raise fail("tilt", "a function or class where it was saved", f"none at {path}", "restore it under that name")
    return found


def _named(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


class Packer:
    """Takes an object apart into JSON and `tensors` by name; the `model` is a placeholder, and never stored.

    A class takes part by a method ``arguments()``: what its constructor, or its ``from_config``, builds it from.
    A module whose ``arguments`` do not hold its weights sets ``stores_weights = True``.

    Example:
        >>> import torch
        >>> from latentebm.models.features import LinearEnergy
        >>> packer = Packer(None)
        >>> packer.pack("energy", LinearEnergy(torch.ones(2)))
        {'kind': 'latentebm.models.features:LinearEnergy', 'arguments': {'theta': {'tensor': 'energy.theta'}, ...}}
        >>> packer.tensors
        {'energy.theta': tensor([1., 1.])}
    """

    def __init__(self, model: object) -> None:
        self.model = model
        self.tensors: dict[str, Tensor] = {}

    def pack(self, name: str, value: Any) -> Any:
        """The JSON form of a value, its tensors kept under names that begin with `name`."""
        if value is self.model and value is not None:
            return {"model": True}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, np.generic):
            return self.pack(name, value.item())
        if isinstance(value, Tensor):
            self.tensors[name] = value.detach().cpu().contiguous().clone()
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"mapping": [[self.pack(f"{name}.{k}", k), self.pack(f"{name}.{k}", v)] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            return {type(value).__name__: [self.pack(f"{name}.{i}", v) for i, v in enumerate(value)]}
        if isinstance(value, functools.partial):
            return {"partial": self.pack(name, value.func), "keywords": self.pack(name, value.keywords)}
        return self._object(name, value)

    def _object(self, name: str, value: Any) -> Any:
        if not hasattr(value, "arguments"):
            if isinstance(value, nn.Module):
                got, fix = f"{type(value).__name__} without one", "return what its constructor takes"
                raise fail(name, "a module with a method arguments()", got, fix)
            path = path_of(name, value)
            own = path.partition(".")[0] == OWN  # a later version of this package may say the same otherwise
            return {"function": path} if own else {"function": path, "text": text_digest(value)}
        kind = path_of(name, type(value))
        arguments = {k: self.pack(f"{name}.{k}", v) for k, v in value.arguments().items()}
        if getattr(value, "stores_weights", False):
            for key, weight in value.state_dict().items():
                self.pack(f"{name}.weights.{key}", weight)
        return {"kind": kind, "arguments": arguments}


class Unpacker:
    """Puts together what a `Packer` took apart, over a model.

    Attributes:
        model: takes the placeholder's place.
        tensors: by name, as they were packed.
        trusted: packages besides this one whose functions and classes may be imported.

    Example:
        >>> import torch
        >>> from latentebm.models.features import LinearEnergy
        >>> packer = Packer(None)
        >>> spec = packer.pack("energy", LinearEnergy(torch.ones(2)))
        >>> Unpacker(None, packer.tensors).unpack("energy", spec).theta.tolist()
        [1.0, 1.0]
    """

    def __init__(self, model: Any, tensors: Mapping[str, Tensor], trusted: Collection[str] = ()) -> None:
        self.model, self.tensors, self.trusted = model, tensors, trusted

    def unpack(self, name: str, spec: Any) -> Any:
        """The object of a JSON form.

        Raises:
            ValueError: a form that no `Packer` writes, or what `find` refuses.
        """
        if not isinstance(spec, dict):
            return spec
        kinds = {"model", "tensor", "mapping", "list", "tuple", "partial", "function", "kind"}
        kind = next(iter(kinds & set(spec)), None)
        if kind is None:
            raise fail("tilt", "a file that save wrote", f"{sorted(spec)} at {name}", "restore it or save again")
        make: Callable[[str, dict[str, Any]], Any] = getattr(self, f"_{kind}")
        return make(name, spec)

    def _model(self, name: str, spec: dict[str, Any]) -> Any:
        return self.model

    def _tensor(self, name: str, spec: dict[str, Any]) -> Tensor:
        if spec["tensor"] not in self.tensors:
            raise fail("tilt", f"a tensor {spec['tensor']}", "a file without it", "restore it or save again")
        return self.tensors[spec["tensor"]]

    def _mapping(self, name: str, spec: dict[str, Any]) -> dict[Any, Any]:
        return {self.unpack(name, k): self.unpack(f"{name}.{k}", v) for k, v in spec["mapping"]}

    def _list(self, name: str, spec: dict[str, Any]) -> list[Any]:
        return [self.unpack(f"{name}.{i}", v) for i, v in enumerate(spec["list"])]

    def _tuple(self, name: str, spec: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(self.unpack(f"{name}.{i}", v) for i, v in enumerate(spec["tuple"]))

    def _partial(self, name: str, spec: dict[str, Any]) -> Any:
        return functools.partial(self.unpack(name, spec["partial"]), **self.unpack(name, spec["keywords"]))

    def _function(self, name: str, spec: dict[str, Any]) -> Any:
        found, text = find(spec["function"], self.trusted), spec.get("text")
        if text is not None and text_digest(found) not in (text, None):
            fix = "restore it, or save the tilt again"
            raise fail("tilt", f"{spec['function']} as it was when the tilt was saved", "another text", fix)
        return found

    def _kind(self, name: str, spec: dict[str, Any]) -> Any:
        kind = find(spec["kind"], self.trusted)
        if not isinstance(kind, type) or not hasattr(kind, "arguments"):
            raise fail("tilt", "a class with arguments()", spec["kind"], "restore the file or save again")
        arguments = {k: self.unpack(f"{name}.{k}", v) for k, v in spec["arguments"].items()}
        made: Any = kind.from_config(arguments) if hasattr(kind, "from_config") else kind(**arguments)
        if getattr(kind, "stores_weights", False):
            start = f"{name}.weights."
            made.load_state_dict({k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)})
            made.requires_grad_(False).eval()
        return made
