"""Features of images by name: pixels, principal components, and networks whose weights lie on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_int, fail
from latentebm.models.seen.image_classifier import Classifier
from latentebm.models.seen.image_scale import lower_end

__all__ = ["ClassProbabilities", "Components", "NetworkFeatures", "Pixels", "named_features"]

FORMS = '"pixels:8", "pca:24", "classifier:PATH", "torchvision:resnet18", "timm:NAME", or a function of the data'
LEAST = 1e-6


class Pixels:
    """Grey pixels: images (N, C, H, W) averaged over channels and over the cells of a grid, (N, side²).

    Example:
        >>> Pixels(2)(torch.ones(1, 3, 8, 8))
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(self, side: int) -> None:
        self.side = check_int("features", side, fix='pass for example "pixels:8"')

    def arguments(self) -> dict[str, Any]:
        """The side."""
        return {"side": self.side}

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, side²) of images (N, C, H, W)."""
        return F.adaptive_avg_pool2d(_images(x).mean(1, keepdim=True), self.side).flatten(1)


class Components:
    r"""Scores (N, F) on principal components of the model's own draws, in standard deviations of the first.

    .. math:: s = V^\top (x - \bar x) / \sigma_1

    Arguments:
        mean: of the flat data, (D,).
        axes: components in columns, over σ₁, (D, F).

    Example:
        >>> draws = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1.0, 0.1])
        >>> scores = Components.of(draws, 2)(draws)
        >>> scores.std(0)
        tensor([1.0000, 0.3318])
    """

    def __init__(self, mean: Tensor, axes: Tensor) -> None:
        self.mean, self.axes = mean, axes

    @classmethod
    def of(cls, draws: Tensor, components: int) -> Components:
        """Components of draws (N, ...); at most one per draw, and one per number of an item."""
        flat = draws.flatten(1).double()
        mean = flat.mean(0)
        # The products of N items with each other are fewer than those of their D pixels.
        values, vectors = torch.linalg.eigh((flat - mean) @ (flat - mean).T)
        kept = min(components, int((values > LEAST * values[-1]).sum()))
        if not kept:
            raise fail("features", "draws that differ", "the same draw again and again", "check the model")
        axes = (flat - mean).T @ vectors[:, -kept:].flip(1)
        spread = values[-kept:].flip(0)
        return cls(mean.float(), (axes / spread.sqrt() / (spread[0] / (len(flat) - 1)).sqrt()).float())

    def arguments(self) -> dict[str, Any]:
        """Mean and axes."""
        return {"mean": self.mean, "axes": self.axes}

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (N, F) of data (N, ...)."""
        return (x.flatten(1).float() - self.mean.to(x.device)) @ self.axes.to(x.device)


class ClassProbabilities:
    """Class probabilities (N, K) of a `Classifier` in a file, for images in [`low`, 1] of 0 or −1.

    Example:
        >>> import tempfile
        >>> path = Classifier((1, 8, 8), 3).save(Path(tempfile.mkdtemp()) / "digits.safetensors")
        >>> ClassProbabilities(str(path))(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, path: str, low: float = 0.0) -> None:
        self.path, self.low, self.net = path, low, Classifier.load(path)

    def arguments(self) -> dict[str, Any]:
        """Path and low."""
        return {"path": self.path, "low": self.low}

    def __call__(self, x: Tensor) -> Tensor:
        """Class probabilities (N, K) of images (N, C, H, W)."""
        return self.net.to(x.device)(_unit(x.float(), self.low)).softmax(1)


class NetworkFeatures:
    """What the last layer but one of a torchvision or timm network says of images in [`low`, 1] of 0 or −1.

    The weights are read from where the library keeps them, and never fetched.

    Raises:
        ImportError: timm is not installed.
        ValueError: an unknown network, or one whose weights are not on this machine.
    """

    def __init__(self, source: str, name: str, low: float = 0.0) -> None:
        self.source, self.name, self.low = source, name, low
        self.net, self.side, mean, std = {"torchvision": _torchvision, "timm": _timm}[source](name)
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.net.requires_grad_(False).eval()

    def arguments(self) -> dict[str, Any]:
        """Source, name and low."""
        return {"source": self.source, "name": self.name, "low": self.low}

    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, F) of images (N, C, H, W)."""
        x = _unit(_images(x).float(), self.low)
        x = F.interpolate(x.expand(-1, 3, -1, -1), size=self.side, mode="bilinear", antialias=True)
        out: Tensor = self.net.to(x.device)((x - self.mean.to(x.device)) / self.std.to(x.device))
        return out.flatten(1)


def named_features(name: str, draws: Tensor) -> Callable[[Tensor], Tensor]:
    """The features that a name stands for.

    Arguments:
        name: ``pixels:SIDE``, grey pixels of a coarse grid; ``pca:F``, components of the model's own draws;
            ``classifier:PATH``, class probabilities of a saved `Classifier`; ``torchvision:NAME`` and ``timm:NAME``,
            the last layer but one of a pretrained network.
        draws: of the model (N, *data_shape): the components are learned from them, and their range is looked at.

    Raises:
        ValueError: an unknown name, or one that does not suit the data.
        FileNotFoundError: a classifier's file is not there.

    Example:
        >>> named_features("pixels:2", torch.rand(5, 1, 4, 4))(torch.zeros(1, 1, 4, 4))
        tensor([[0., 0., 0., 0.]])
    """
    kind, _, rest = name.partition(":")
    if kind not in ("pixels", "pca", "classifier", "torchvision", "timm") or not rest:
        raise fail("features", f"one of {FORMS}", repr(name), "correct the name")
    if kind in ("pixels", "pca"):
        number = int(rest) if rest.isdecimal() else rest
        number = check_int("features", number, fix=f'pass for example "{kind}:8"')
        return Components.of(draws, number) if kind == "pca" else _tried(Pixels(number), draws)
    _images(draws)
    low = _low(draws)
    return _tried(ClassProbabilities(rest, low) if kind == "classifier" else NetworkFeatures(kind, rest, low), draws)


def _tried(features: Callable[[Tensor], Tensor], draws: Tensor) -> Callable[[Tensor], Tensor]:
    features(draws[:1])
    return features


def _images(x: Tensor) -> Tensor:
    if x.ndim != 4:
        expected, fix = "images (N, C, H, W) for these features", 'pass "pca:8", or a function of the data'
        raise fail("features", expected, f"data of shape {tuple(x.shape)}", fix)
    return x


def _low(draws: Tensor) -> float:
    """The lower end of the images' range, 0 or −1, by draws of the model."""
    low, high = float(draws.min()), float(draws.max())
    if low < -1.01 or high > 1.01:
        got, fix = f"values in [{low:.3g}, {high:.3g}]", "pass a function that scales them"
        raise fail("features", "images in [0, 1] or [-1, 1]", got, fix)
    return lower_end(draws)


def _unit(x: Tensor, low: float) -> Tensor:
    return (x - low) / (1 - low)


def _torchvision(name: str) -> tuple[nn.Module, int, Any, Any]:
    from torchvision.models import get_model, get_model_weights

    try:
        weights: Any = get_model_weights(name).DEFAULT
    except ValueError:
        raise fail("features", "a classification network of torchvision", repr(name), "correct the name") from None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        raise _absent(path, f"curl -L --create-dirs -o {path} {weights.url}")
    net = get_model(name, weights=None)
    net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    last = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = last.rpartition(".")
    setattr(net.get_submodule(parent), leaf, nn.Identity())
    form = weights.transforms()
    return net, form.crop_size[0], form.mean, form.std


def _timm(name: str) -> tuple[nn.Module, int, Any, Any]:
    try:
        import timm
    except ImportError as error:
        raise ImportError('timm: expected for features="timm:…", not found; pip install timm') from error
    from huggingface_hub import try_to_load_from_cache
    from safetensors.torch import load_file

    if not timm.is_model(name):
        raise fail("features", "a network of timm", repr(name), "see timm.list_models()")
    net = timm.create_model(name, pretrained=False, num_classes=0)
    form: Any = net.pretrained_cfg
    path = try_to_load_from_cache(str(form.get("hf_hub_id")), "model.safetensors")
    if not isinstance(path, str):
        raise _absent(f"the cache of {form.get('hf_hub_id')}", f"hf download {form.get('hf_hub_id')} model.safetensors")
    net.load_state_dict(load_file(path), strict=False)
    return net, form["input_size"][-1], form["mean"], form["std"]


def _absent(place: object, command: str) -> ValueError:
    fix = f"weights are never fetched unasked: run {command}"
    return fail("features", f"weights in {place}", "none", fix)
