"""Imputation of missing cells: single and multiple, by MIWAE, not-MIWAE and their tilted forms."""

from latentebm.missing.imputation import Imputation, impute
from latentebm.missing.imputer import MIWAEImputer
from latentebm.missing.pooling import Pooled, pool
from latentebm.missing.tilted import MIWAETilt, tilt_miwae

__all__ = ["Imputation", "MIWAEImputer", "MIWAETilt", "Pooled", "impute", "pool", "tilt_miwae"]
