"""scikit-learn's manners of an estimator, without scikit-learn, which takes a second to import."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from latentebm.checks import fail

__all__ = ["Estimator"]

S = TypeVar("S", bound="Estimator")


class Estimator:
    """What a dataclass of settings needs to be one of scikit-learn's estimators: it is cloned, searched over and shown.

    Example:
        >>> from sklearn.base import clone
        >>> @dataclasses.dataclass(repr=False)
        ... class Ridge(Estimator):
        ...     penalty: float = 1.0
        ...     seed: int = 0
        >>> clone(Ridge()).set_params(penalty=2.0), Ridge().get_params()
        (Ridge(penalty=2.0), {'penalty': 1.0, 'seed': 0})
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Every setting as it was given; `deep` changes nothing, since no setting is an estimator."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self: S, **params: Any) -> S:
        """Change settings by name.

        Raises:
            ValueError: there is no such setting.
        """
        known = self._defaults()
        for name, value in params.items():
            if name not in known:
                fix = f"pass one of {', '.join(known)}"
                raise fail("params", f"settings of {type(self).__name__}", repr(name), fix)
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(two_d_array=False)
        )

    def __repr__(self) -> str:
        asked = [f"{k}={getattr(self, k)!r}" for k, usual in self._defaults().items() if getattr(self, k) != usual]
        return f"{type(self).__name__}({', '.join(asked)})"

    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in dataclasses.fields(self)}  # type: ignore[arg-type]
