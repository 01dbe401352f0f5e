"""A small convnet of images: the judge of class shares, and features of a tilt."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from latentebm.checks import check_event, check_int, fail
from latentebm.chunks import chunk_size, in_chunks
from latentebm.disk.statefile import load_tensors, save_tensors

__all__ = ["Classifier"]

CHANNELS = 16  # of the first layer, which holds the most numbers


class Classifier(nn.Module):
    r"""Images (N, C, H, W) to features φ of two convolutions and one layer, and from these to classes.

    .. math:: p(y|x) = \mathrm{softmax}(W\,\phi(x) + b)

    References:
        Gradient-based learning applied to document recognition (LeCun et al., 1998).

    Example:
        >>> classifier = Classifier((1, 28, 28), 10)
        >>> classifier(torch.zeros(2, 1, 28, 28)).shape, classifier.embed(torch.zeros(2, 1, 28, 28)).shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, data_shape: tuple[int, ...], n_classes: int, *, features: int = 64) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.sizes = {"n_classes": n_classes, "features": features}
        channels, height, width = data_shape
        flat = 32 * math.ceil(height / 4) * math.ceil(width / 4)
        self.body = nn.Sequential(
            nn.Conv2d(channels, CHANNELS, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(CHANNELS, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(flat, check_int("features", features)),
            nn.ReLU(),
        )
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

    def save(self, path: Path | str) -> Path:
        """Write weights and sizes to a safetensors file, which `load` and ``features="classifier:PATH"`` read."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return save_tensors(path, state, classifier=json.dumps({"data_shape": self.data_shape, **self.sizes}))

    @classmethod
    def load(cls, path: Path | str) -> Classifier:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.

        Example:
            >>> import tempfile
            >>> first = Classifier((1, 8, 8), 3).eval()
            >>> again = Classifier.load(first.save(Path(tempfile.mkdtemp()) / "digits.safetensors"))
            >>> torch.equal(again(torch.ones(2, 1, 8, 8)), first(torch.ones(2, 1, 8, 8)))
            True
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"classifier: expected a file at {path}, found none; write it by Classifier.save")
        try:
            with safe_open(path, "pt") as file:
                sizes: dict[str, Any] = json.loads((file.metadata() or {})["classifier"])
            state = load_tensors(path, "classifier")
            made = cls(tuple(sizes.pop("data_shape")), **sizes)
            made.load_state_dict(state)
        except Exception as error:
            raise fail("classifier", "a file that Classifier.save wrote", f"{path}", "write it by save") from error
        return made.requires_grad_(False).eval()
