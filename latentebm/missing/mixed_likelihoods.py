"""Observation models cell by cell, for tables whose columns follow different families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal, StudentT
from torch.nn import functional as F

from latentebm.checks import check_choice, check_int
from latentebm.rng import normal, uniform

__all__ = ["FAMILIES", "MixedLikelihood"]

# Keeps a scale above zero on a column the decoder fits exactly, where the likelihood is unbounded.
MIN_SCALE = 1e-3


class Family(ABC):
    """One family over `count` columns: parameters per column, features per column, and its distribution.

    Shapes: values (…, count), parameters (…, count, parameters), features (…, count, width).
    """

    parameters: int
    width: int = 1

    @abstractmethod
    def distribution(self, parameter: Tensor) -> Distribution:
        """Of the values, given their parameters."""

    @abstractmethod
    def mean(self, parameter: Tensor) -> Tensor:
        """Expected features."""

    @abstractmethod
    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Features drawn; their gradient reaches the parameters."""

    def features(self, x: Tensor) -> Tensor:
        """Features of values."""
        return x.unsqueeze(-1)

    def point(self, features: Tensor) -> Tensor:
        """Values of features, the most probable class where there are classes."""
        return features.squeeze(-1)


class Gaussian(Family):
    """Normal with mean and softplus scale."""

    parameters = 2

    def distribution(self, parameter: Tensor) -> Distribution:
        return Normal(parameter[..., 0], _scale(parameter[..., 1]), validate_args=False)

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter[..., :1]

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.mean(parameter)
        return mean + _scale(parameter[..., 1:2]) * normal(mean.shape, generator, mean)


class StudentsT(Gaussian):
    """Student's t with location (its mean), softplus scale and more than 3 degrees of freedom."""

    parameters = 3

    def distribution(self, parameter: Tensor) -> Distribution:
        df = 3 + F.softplus(parameter[..., 2])
        return StudentT(df, parameter[..., 0], _scale(parameter[..., 1]), validate_args=False)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        df = 3 + F.softplus(parameter[..., 2:3])
        # The only gamma draw of torch that takes a generator; torch.distributions calls it without one.
        gamma = torch._standard_gamma((df / 2).to(generator.device), generator=generator).to(df)
        noise = normal(df.shape, generator, df) * (df / 2 / gamma).sqrt()
        return self.mean(parameter) + _scale(parameter[..., 1:2]) * noise


class Binary(Family):
    """Bernoulli with logit; values in [0, 1], grey values acting as probabilities."""

    parameters = 1

    def distribution(self, parameter: Tensor) -> Distribution:
        return Bernoulli(logits=parameter[..., 0], validate_args=False)

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter.sigmoid()

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        p = self.mean(parameter)
        return _straight_through(uniform(p.shape, generator, p) < p, p)


class Classes(Family):
    """Categorical with C logits; values are class numbers, features one-hot."""

    def __init__(self, classes: int = 0) -> None:
        self.parameters = self.width = check_int("classes", classes, low=2)

    def distribution(self, parameter: Tensor) -> Distribution:
        return Categorical(logits=parameter, validate_args=False)

    def mean(self, parameter: Tensor) -> Tensor:
        return parameter.softmax(-1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        p = self.mean(parameter)
        noise = -(-uniform(p.shape, generator, p).clamp_min(1e-30).log()).log()
        # The largest of log p + Gumbel noise is a draw from p.
        return _straight_through(F.one_hot((parameter + noise).argmax(-1), self.width), p)

    def features(self, x: Tensor) -> Tensor:
        return F.one_hot(x.long(), self.width).to(torch.get_default_dtype())

    def point(self, features: Tensor) -> Tensor:
        return features.argmax(-1).to(features)


FAMILIES: dict[str, Callable[..., Family]] = {
    "gaussian": Gaussian,
    "student_t": StudentsT,
    "bernoulli": Binary,
    "categorical": Classes,
}


class MixedLikelihood:
    r"""Independent cells given the decoder's output, each column of its own family.

    .. math:: \log p(x_{obs}|z) = \sum_{j:\,s_j = 1} \log p_j(x_j \mid f_j(z))

    Values x (…, D) hold numbers, and class numbers 0 … C−1 in categorical columns. Features (…, F) are what networks
    read and write: numbers as they are, classes one-hot.

    Each column's family is ``gaussian``, ``student_t`` (mean, scale, degrees of freedom), ``bernoulli`` or
    ``("categorical", C)`` with C ≥ 2.

    Example:
        >>> likelihood = MixedLikelihood(["gaussian", ("categorical", 3)])
        >>> likelihood.features(torch.tensor([[0.5, 2.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
        >>> likelihood.log_prob(torch.tensor([[0.0, 2.0]]), torch.zeros(1, likelihood.n_parameters)).shape
        torch.Size([1, 2])
    """

    def __init__(self, families: Sequence[str | tuple[str, int]]) -> None:
        check_int("columns", len(families), fix="declare a family for each column")
        built = [_build(f) for f in families]
        # Columns of one family are computed together.
        keys = [(type(f).__name__, f.width) for f in built]
        groups = [[j for j, k in enumerate(keys) if k == key] for key in dict.fromkeys(keys)]
        self.groups = [(built[group[0]], group) for group in groups]
        self.n_columns = len(families)
        self.n_parameters = sum(f.parameters for f in built)
        self.n_features = sum(f.width for f in built)
        order = [j for group in groups for j in group]
        # Picking columns copies every draw: a slice where they are in order already.
        self._inverse = slice(None) if order == sorted(order) else [order.index(j) for j in range(self.n_columns)]
        self.feature_column = torch.tensor([j for j in order for _ in range(built[j].width)])

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density (…, D) of each cell, nats; where a value is missing, x must hold any valid one."""
        cells = [f.distribution(part).log_prob(x[..., group]) for f, group, part in self._split(parameter)]
        return torch.cat(cells, -1)[..., self._inverse]

    def mean(self, parameter: Tensor) -> Tensor:
        """Expected features (…, F)."""
        return torch.cat([f.mean(part).flatten(-2) for f, _, part in self._split(parameter)], -1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Features (…, F) drawn from every cell's distribution; gradients of classes are those of their means."""
        return torch.cat([f.sample(part, generator).flatten(-2) for f, _, part in self._split(parameter)], -1)

    def features(self, x: Tensor) -> Tensor:
        """Features (…, F) of values (…, D)."""
        return torch.cat([f.features(x[..., group]).flatten(-2) for f, group in self.groups], -1).to(x.dtype)

    def point(self, features: Tensor) -> Tensor:
        """Values (…, D) of features (…, F): expectations of numbers, the most probable class."""
        parts = features.split([len(group) * f.width for f, group in self.groups], -1)
        points = [f.point(p.unflatten(-1, (-1, f.width))) for (f, _), p in zip(self.groups, parts, strict=True)]
        return torch.cat(points, -1)[..., self._inverse]

    def _split(self, parameter: Tensor) -> list[tuple[Family, list[int], Tensor]]:
        """Each group with its parameters (…, count, parameters)."""
        parts = parameter.split([len(group) * f.parameters for f, group in self.groups], -1)
        # (…, parameters, count): a linear decoder writes all means first, then all scales.
        return [
            (f, group, part.unflatten(-1, (f.parameters, -1)).transpose(-1, -2))
            for (f, group), part in zip(self.groups, parts, strict=True)
        ]


def _build(family: str | tuple[str, int]) -> Family:
    name, *classes = (family,) if isinstance(family, str) else family
    return FAMILIES[check_choice("likelihood", name, FAMILIES)](*classes)


def _scale(raw: Tensor) -> Tensor:
    return F.softplus(raw) + MIN_SCALE


def _straight_through(drawn: Tensor, p: Tensor) -> Tensor:
    """Draws of 0 and 1 whose gradient is that of their probabilities."""
    return drawn.to(p) + p - p.detach()
