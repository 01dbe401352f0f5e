"""Imputation of missing cells: single and multiple, by MIWAE, not-MIWAE and their tilted forms."""

from latentebm.imputation.imputer import MIWAEImputer
from latentebm.imputation.snis import Imputation, impute
from latentebm.imputation.tilted import MIWAETilt, tilt_miwae

__all__ = ["Imputation", "MIWAEImputer", "MIWAETilt", "impute", "tilt_miwae"]
