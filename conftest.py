"""Doctests of adapters run where their library is: sdv and ctgan ask for another pandas than the rest."""

from importlib.util import find_spec

import pytest

collect_ignore = [f"latentebm/adapters/from_{name}.py" for name in ("ctgan", "sdv") if find_spec(name) is None]

# Files that take longest, which workers begin with: else one of them would end the suite alone.
LONG = ("notebooks", "workflow", "mnist", "sampling_jem", "types", "cli", "plan", "processes", "sampling_chains")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; within a file the order stays."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))
