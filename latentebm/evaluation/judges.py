"""The evaluation classifier: a small convnet trained on real labelled images; its features serve the metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm.checks import check_event, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.data.batches import Minibatches
from latentebm.data.images import Images
from latentebm.progress import Track, silent
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

__all__ = ["Classifier", "fit_classifier"]

CHANNELS = 16  # of the first layer, which holds the most numbers


class Classifier(nn.Module):
    r"""Images (N, C, H, W) to features φ of two convolutions and one layer, and from these to classes.

    .. math:: p(y|x) = \mathrm{softmax}(W\,\phi(x) + b)

    Another `body`, from images to (N, features), takes the place of these layers.

    References:
        Gradient-based learning applied to document recognition (LeCun et al., 1998).

    Example:
        >>> classifier = Classifier((1, 28, 28), 10)
        >>> classifier(torch.zeros(2, 1, 28, 28)).shape, classifier.embed(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(
        self, data_shape: tuple[int, ...], n_classes: int, *, features: int = 64, body: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.body = _small(self.data_shape, check_int("features", features)) if body is None else body
        self.head = nn.Linear(features, check_int("n_classes", n_classes))
        # Channels last halves the time of these small convolutions on a processor.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, n_classes) of images in [0, 1]."""
        return self.head(self._features(check_event("x", x, self.data_shape)))

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """Features φ (N, features), without gradient."""
        check_event("x", x, self.data_shape)
        size = chunk_size(CHANNELS * self.data_shape[1] * self.data_shape[2], x.device)
        return in_chunks(self._features, x, size)

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities (N, n_classes) of features."""
        return self.head(features).softmax(1)

    def _features(self, x: Tensor) -> Tensor:
        return self.body(x.contiguous(memory_format=torch.channels_last))


def _small(data_shape: tuple[int, ...], features: int) -> nn.Sequential:
    channels, height, width = data_shape
    return nn.Sequential(
        nn.Conv2d(channels, CHANNELS, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(CHANNELS, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(32 * math.ceil(height / 4) * math.ceil(width / 4), features),
        nn.ReLU(),
    )


def fit_classifier(
    data: Images,
    *,
    build: Callable[[tuple[int, ...], int], Classifier] = Classifier,
    epochs: int = 2,
    batch_size: int = 128,
    lr: float = 3e-3,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    track: Track = silent,
) -> Classifier:
    r"""Train a classifier by cross-entropy and return it in evaluation mode.

    .. math:: \min_\theta \mathrm{mean}_i\, -\log p_\theta(y_i|x_i)

    `build` makes it from the shape of an image and the number of classes. The generator shuffles the batches, and `lr`
    is the peak of a one-cycle schedule; the initial weights come from torch's default stream.

    Example:
        >>> images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
        >>> images[20:] = 255
        >>> data = Images(images, torch.arange(40) // 20, ("black", "white"))
        >>> rng = torch.Generator().manual_seed(0)
        >>> classifier = fit_classifier(data, epochs=30, batch_size=20, lr=0.01, generator=rng)
        >>> classifier(data.float01()).argmax(1).tolist() == data.labels.tolist()
        True
    """
    if data.labels is None:
        raise fail("data", "labelled images", "no labels", "pass Images(images, labels, class_names)")
    classifier = build(tuple(data.images.shape[1:]), len(data.class_names)).to(device)
    batches = Minibatches(
        data.images.to(device), data.labels.to(device), batch_size=batch_size, epochs=epochs, generator=generator
    )

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(classifier(batch[0].float() / 255), batch[1])

    known: dict[str, Any] = {"state": [generator], "track": track, "description": "classifier"}
    fit(classifier, loss, batches, Optimisation(lr=lr, schedule="onecycle"), **known)
    return classifier.eval()
