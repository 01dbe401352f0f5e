"""Doctests of adapters run where their library is: sdv and ctgan ask for another pandas than the rest."""

from importlib.util import find_spec

collect_ignore = [f"latentebm/adapters/from_{name}.py" for name in ("ctgan", "sdv") if find_spec(name) is None]
