"""The plane in which latents of any length are looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from sklearn.decomposition import PCA
from torch import Tensor

from latentebm.checks import fail

__all__ = ["Plane", "label_plane"]


class Plane:
    """A plane to look at latents (N, d) in: their own for two dimensions, else their first two principal components.

    Raises:
        ValueError: fewer than two points.

    Example:
        >>> import torch
        >>> Plane(torch.randn(10, 5))(torch.randn(3, 5)).shape
        (3, 2)
    """

    def __init__(self, latent: Tensor) -> None:
        if len(latent) < 2:
            raise fail("latent", "at least 2 points", len(latent), "pass more")
        self.dim = latent.shape[1]
        self.pca = PCA(2, random_state=0).fit(latent.cpu().numpy()) if self.dim > 2 else None

    def __call__(self, latent: Tensor) -> np.ndarray:
        """Coordinates (N, 2) of points (N, d); one dimension is padded with zeros."""
        points = latent.detach().cpu().numpy()
        if self.pca is not None:
            return np.asarray(self.pca.transform(points))
        return points if self.dim == 2 else np.pad(points, ((0, 0), (0, 1)))

    @property
    def labels(self) -> tuple[str, str]:
        """Axis labels."""
        return ("principal component 1", "principal component 2") if self.dim > 2 else ("$z_1$", "$z_2$")


def label_plane(ax: Axes, plane: Plane, title: str) -> None:
    """Name the axes after the plane's and set the title."""
    ax.set(xlabel=plane.labels[0], ylabel=plane.labels[1])
    ax.set_title(title, fontsize=10)
