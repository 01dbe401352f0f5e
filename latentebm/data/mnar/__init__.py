"""Missing-data mechanisms: remove cells on purpose, completely at random, at random or not."""

from latentebm.data.mnar.classes import ByClass, ImagePixels
from latentebm.data.mnar.columns import MAR, MCAR, ColumnDriven, SelfMasking
from latentebm.data.mnar.dataset import MNARDataset
from latentebm.data.mnar.make import make_missing, make_missing_values
from latentebm.data.mnar.mechanism import Mechanism, MissingDataWarning
from latentebm.data.mnar.patterns import Patterns

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
