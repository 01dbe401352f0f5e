"""The evaluation classifier: a small convnet trained on real labelled images; its features serve the metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import fail
from latentebm.data.batches import Minibatches
from latentebm.data.images import Images
from latentebm.models.seen.image_classifier import Classifier
from latentebm.progress import Track, silent
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

__all__ = ["Classifier", "fit_classifier"]


def fit_classifier(
    data: Images,
    *,
    build: Callable[[tuple[int, ...], int], Classifier] = Classifier,
    epochs: int = 2,
    batch_size: int = 128,
    lr: float = 3e-3,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    autocast: bool = False,
    track: Track = silent,
) -> Classifier:
    r"""Train a classifier by cross-entropy and return it in evaluation mode.

    .. math:: \min_\theta \mathrm{mean}_i\, -\log p_\theta(y_i|x_i)

    `build` makes it from the shape of an image and the number of classes. The generator shuffles the batches, and `lr`
    is the peak of a one-cycle schedule; the initial weights come from torch's default stream. With `autocast` it trains
    in bfloat16, on processors that have it in half the time.

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
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=autocast):
            logits = classifier(batch[0].float() / 255)
        return F.cross_entropy(logits.float(), batch[1])

    known: dict[str, Any] = {"state": [generator], "noise": [], "track": track, "description": "classifier"}
    fit(classifier, loss, batches, Optimisation(lr=lr, schedule="onecycle"), **known)
    return classifier.eval()
