"""Missing-data mechanisms: remove cells on purpose, completely at random, at random or not."""

from latentebm.missing.mechanisms.classes import ByClass, ImagePixels
from latentebm.missing.mechanisms.columns import MAR, MCAR, ColumnDriven, SelfMasking
from latentebm.missing.mechanisms.make import MNARDataset, make_missing, make_missing_values
from latentebm.missing.mechanisms.mechanism import Mechanism, MissingDataWarning
from latentebm.missing.mechanisms.patterns import Patterns

__all__ = [
    "MAR",
    "MCAR",
    "ByClass",
    "ColumnDriven",
    "ImagePixels",
    "MNARDataset",
    "Mechanism",
    "MissingDataWarning",
    "Patterns",
    "SelfMasking",
    "make_missing",
    "make_missing_values",
]
