"""Generators of tables by the sdv package, which wraps those of ctgan in preprocessing of its own."""

from __future__ import annotations

from typing import Any

from latentebm.adapters.from_ctgan import TableModel, from_ctgan
from latentebm.checks import fail

__all__ = ["from_sdv"]


class _Both:
    """The transformer of ctgan, then sdv's."""

    def __init__(self, inner: Any, processor: Any) -> None:
        self.inner, self.processor = inner, processor

    def inverse_transform(self, rows: Any) -> Any:
        self.processor.reset_sampling()  # or the same rows would get other identifiers, and gaps elsewhere
        return self.processor.reverse_transform(self.inner.inverse_transform(rows))


def from_sdv(synthesizer: Any) -> TableModel:
    """A fitted ``CTGANSynthesizer`` or ``TVAESynthesizer`` of sdv; `frame` undoes sdv's own preprocessing as well.

    What sdv draws after decoding, identifiers and which values are missing, is no part of the code: it is the same
    again for the same number of rows, and no tilt changes it.

    Raises:
        ValueError: an object that has not been fitted, or another one.

    References:
        The Synthetic Data Vault (Patki, Wedge and Veeramachaneni, 2016), https://doi.org/10.1109/DSAA.2016.49

    Example:
        >>> import pandas as pd, torch
        >>> from sdv.metadata import Metadata
        >>> from sdv.single_table import TVAESynthesizer
        >>> table = pd.DataFrame({"age": [20.0, 30.0, 60.0, 70.0] * 25, "job": ["a", "b"] * 50})
        >>> known = Metadata.detect_from_dataframes({"people": table})
        >>> tvae = TVAESynthesizer(known, epochs=1, embedding_dim=4, compress_dims=(8,), decompress_dims=(8,))
        >>> tvae.fit({"people": table})
        >>> model = from_sdv(tvae)
        >>> list(model.frame(model.decode(torch.randn(3, model.latent_dim))).columns)
        ['age', 'job']
    """
    inner = getattr(synthesizer, "_model", None)
    if inner is None or not hasattr(synthesizer, "_data_processor"):
        raise fail("synthesizer", "a fitted synthesizer of sdv", type(synthesizer).__name__, "call its fit first")
    if not any(hasattr(inner, name) for name in ("_generator", "decoder")):
        expected, fix = "a CTGANSynthesizer or TVAESynthesizer", "fit one of these to the same table"
        raise fail("synthesizer", expected, type(synthesizer).__name__, fix)
    model = from_ctgan(inner)
    model.transformer = _Both(model.transformer, synthesizer._data_processor)
    return model
