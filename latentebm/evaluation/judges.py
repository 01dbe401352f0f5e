"""The evaluation classifier: a small convnet trained on real labelled images; its features serve the metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentebm.checks import fail
from latentebm.data.batches import Minibatches
from latentebm.data.images import Images
from latentebm.models.seen.image_classifier import Classifier
from latentebm.progress import Track, silent
from latentebm.rng import seeded
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation

__all__ = ["Classifier", "fit_classifier", "train_classifier"]


def fit_classifier(data: Images, *, generator: torch.Generator, **options: Any) -> Classifier:
    """Make a small convnet for labelled images, its first weights from the generator, and train it.

    Arguments:
        data: images with labels.
        generator: source of the first weights and of the batches.
        options: of `train_classifier`.

    Raises:
        ValueError: images without labels.

    Example:
        >>> images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
        >>> images[20:] = 255
        >>> data = Images(images, torch.arange(40) // 20, ("black", "white"))
        >>> rng = torch.Generator().manual_seed(0)
        >>> classifier = fit_classifier(data, epochs=30, batch_size=20, lr=0.01, generator=rng)
        >>> classifier(data.float01()).argmax(1).tolist() == data.labels.tolist()
        True
    """
    with seeded(generator):
        classifier = Classifier(tuple(data.images.shape[1:]), len(data.class_names))
    return train_classifier(classifier, data, generator=generator, **options)


def train_classifier(
    classifier: Classifier,
    data: Images,
    *,
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

    The generator shuffles the batches, and `lr` is the peak of a one-cycle schedule. With `autocast` it trains in
    bfloat16, on processors that have it in half the time.

    Raises:
        ValueError: images without labels.

    Example:
        >>> images = torch.rand(40, 1, 8, 8)
        >>> data = Images((255 * images).byte(), (images.mean((1, 2, 3)) > 0.5).long(), ("dark", "light"))
        >>> with seeded(0):
        ...     classifier = Classifier((1, 8, 8), 2)
        >>> train_classifier(classifier, data, generator=torch.Generator()).training
        False
    """
    if data.labels is None:
        raise fail("data", "labelled images", "no labels", "pass Images(images, labels, class_names)")
    classifier = classifier.to(device)
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
