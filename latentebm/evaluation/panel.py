"""Several judges of different make: what a stranger to the model sees, and what the model means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentebm.checks import fail
from latentebm.data.images import Images
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.evaluation.judges import Classifier, train_classifier
from latentebm.progress import Track, silent
from latentebm.rng import permutation, seeded
from latentebm.training.fit_vae import bf16_pays

__all__ = ["Panel", "fit_panel", "large_judge", "linear_judge"]

SEEN = 30_000  # images that each judge sees in its training, all passes together: some ten seconds on two cores
PASSES = 3  # at most, over small data
CELLS = 7  # of the linear judge's features, along each side


@dataclass(frozen=True)
class Panel:
    """Classifiers of real images, made differently, and one that knows the model's reconstructions as well.

    One judge's reading of generated images is one judge's habit: where judges of equal accuracy on real images read
    the same draws differently, the draws are not clear.

    Attributes:
        strangers: trained on real images alone, by name.
        insider: trained on real images and their reconstructions; it reads what the model means.
    """

    strangers: dict[str, Classifier]
    insider: Classifier

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classes that the strangers, (J, N), and the insider, (N,), read off images (N, C, H, W)."""
        everyone = [*self.strangers.values(), self.insider]
        *seen, meant = [judge.probabilities(judge.embed(images)).argmax(1).cpu() for judge in everyone]
        return torch.stack(seen), meant


def large_judge(data_shape: tuple[int, ...], n_classes: int) -> Classifier:
    """A convnet of three layers with batch normalisation, some five times the small one's work.

    Example:
        >>> large_judge((1, 8, 8), 3).eval()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """
    layers: list[nn.Module] = []
    for i, o, stride in ((data_shape[0], 32, 2), (32, 64, 1), (64, 96, 2)):
        layers += [nn.Conv2d(i, o, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
    return _with_body(body, data_shape, n_classes, 96 * 9)


def linear_judge(data_shape: tuple[int, ...], n_classes: int) -> Classifier:
    """A linear model on fixed features, each brought to mean 0 and variance 1 over the training images.

    Example:
        >>> sum(p.numel() for p in linear_judge((1, 8, 8), 3).parameters()) == 3 * (8 * 49 + 1)
        True
    """
    features = 8 * CELLS**2
    body = nn.Sequential(_Fixed(), nn.BatchNorm1d(features, affine=False, momentum=None))
    return _with_body(body, data_shape, n_classes, features)


def _with_body(body: nn.Module, data_shape: tuple[int, ...], n_classes: int, features: int) -> Classifier:
    """A classifier whose features are made by other layers."""
    judge = Classifier(data_shape, n_classes, features=features)
    judge.body = body.to(memory_format=torch.channels_last)  # type: ignore[assignment]
    return judge


class _Fixed(nn.Module):
    """`fixed_features` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Features of images in [0, 1]."""
        return fixed_features(x, cells=CELLS)


def fit_panel(
    small: Classifier,
    data: Images,
    reconstruct: Callable[[Tensor], Tensor],
    *,
    seen: int = SEEN,
    generator: torch.Generator,
    track: Track = silent,
) -> Panel:
    """Train the other judges beside the `small` convnet that there is.

    Arguments:
        small: fitted to the same data.
        data: labelled real images.
        reconstruct: the model's reconstructions of images (N, C, H, W) in [0, 1].
        seen: images that each judge sees in its training, all passes together.
        generator: source of the first weights and of the batches.
        track: shows progress.

    Raises:
        ValueError: images without labels.

    Example:
        >>> images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
        >>> images[20:, :, :, 4:] = 255
        >>> images[:20, :, 4:] = 255
        >>> data, rng = Images(images, torch.arange(40) // 20, ("below", "right")), torch.Generator().manual_seed(0)
        >>> with seeded(rng):
        ...     small = train_classifier(Classifier((1, 8, 8), 2), data, epochs=20, generator=rng)
        >>> panel = fit_panel(small, data, lambda x: x, generator=rng)
        >>> list(panel.strangers), panel.read(data.float01())[0].shape
        (['small convnet', 'large convnet', 'linear model'], torch.Size([3, 40]))
    """
    if data.labels is None:
        raise fail("data", "labelled images", "no labels", "pass Images(images, labels, class_names)")
    with seeded(generator):
        makes = (large_judge, linear_judge, Classifier)
        large, linear, insider = [make(tuple(data.images.shape[1:]), len(data.class_names)) for make in makes]
    device = next(small.parameters()).device
    known: dict[str, Any] = {"generator": generator, "track": track, "device": device}
    fast = {**known, "autocast": bf16_pays(device)}
    part = data[permutation(len(data), generator, "cpu")[:seen]]
    passes = max(1, min(PASSES, round(seen / len(part))))
    strangers = {
        "small convnet": small,
        "large convnet": train_classifier(large, part, epochs=passes, **fast),
        "linear model": train_classifier(linear, part, epochs=2 * passes, lr=1e-2, **known),
    }
    both = _with_reconstructions(part[torch.arange(min(len(part), max(1, seen // 2)))], reconstruct)
    passes = max(1, min(PASSES, round(seen / len(both))))
    return Panel(strangers, train_classifier(insider, both, epochs=passes, **fast))


def _with_reconstructions(data: Images, reconstruct: Callable[[Tensor], Tensor]) -> Images:
    """The images, and a reconstruction of each."""
    blurred = torch.cat([(255 * reconstruct(x.float() / 255).cpu()).round().byte() for x in data.images.split(4096)])
    labels = torch.empty(0) if data.labels is None else data.labels
    return Images(torch.cat([data.images, blurred]), torch.cat([labels, labels]), data.class_names)
