"""Observation models cell by cell, for tables whose columns follow different families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, StudentT
from torch.nn import functional as F

from latentebm.checks import check_choice, check_int

__all__ = ["FAMILIES", "MixedLikelihood"]

# Keeps a scale from falling to zero on a column the decoder fits exactly, where the likelihood is unbounded.
MIN_SCALE = 1e-3


class Family(ABC):
    """One family over `count` columns: numbers a column, features a column, and its law."""

    parameters: int
    width: int = 1

    @abstractmethod
    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density (…, count) in nats of values (…, count), given numbers (…, count, parameters)."""

    @abstractmethod
    def mean(self, parameter: Tensor) -> Tensor:
        """Expected features (…, count, width)."""

    @abstractmethod
    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Features (…, count, width) drawn; their gradient reaches the parameters."""

    def features(self, x: Tensor) -> Tensor:
        """Features (…, count, width) of values (…, count)."""
        return x.unsqueeze(-1)

    def point(self, features: Tensor) -> Tensor:
        """Values (…, count) of features, the likeliest class where there are classes."""
        return features.squeeze(-1)


class Gaussian(Family):
    """Normal with mean and softplus scale."""

    parameters = 2

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density of a normal."""
        return Normal(parameter[..., 0], _scale(parameter[..., 1]), validate_args=False).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Mean."""
        return parameter[..., :1]

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Reparametrised draws."""
        return parameter[..., :1] + _scale(parameter[..., 1:2]) * _normal(parameter[..., :1], generator)


class StudentsT(Family):
    """Student's t with location, softplus scale and more than 3 degrees of freedom."""

    parameters = 3

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density of a Student's t."""
        df = 3 + F.softplus(parameter[..., 2])
        return StudentT(df, parameter[..., 0], _scale(parameter[..., 1]), validate_args=False).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Location, the mean since the degrees of freedom exceed 1."""
        return parameter[..., :1]

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Reparametrised draws: a normal over the root of a gamma."""
        df = 3 + F.softplus(parameter[..., 2:3])
        # The only gamma draw of torch that takes a generator; torch.distributions calls it without one.
        gamma = torch._standard_gamma(df / 2, generator=generator)
        noise = _normal(df, generator) * (df / 2 / gamma).sqrt()
        return parameter[..., :1] + _scale(parameter[..., 1:2]) * noise


class Binary(Family):
    """Bernoulli with logit; values in [0, 1], grey values acting as probabilities."""

    parameters = 1

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-probability of a Bernoulli."""
        return Bernoulli(logits=parameter[..., 0], validate_args=False).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Probability of 1."""
        return parameter.sigmoid()

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draws of 0 and 1; straight-through gradient, that of the mean."""
        p = parameter.sigmoid()
        uniform = torch.rand(p.shape, generator=generator, device=generator.device).to(p)
        return (uniform < p).to(p) + p - p.detach()


class Classes(Family):
    """Categorical with C logits; values are class numbers, features one-hot."""

    def __init__(self, classes: int) -> None:
        self.parameters = self.width = check_int("classes", classes, low=2)

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-probability of class numbers."""
        return Categorical(logits=parameter, validate_args=False).log_prob(x)

    def mean(self, parameter: Tensor) -> Tensor:
        """Class probabilities."""
        return parameter.softmax(-1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """One-hot draws; straight-through gradient, that of the probabilities."""
        p = parameter.softmax(-1)
        uniform = torch.rand(p.shape, generator=generator, device=generator.device).to(p)
        # The largest of log p + Gumbel noise is a draw from p.
        drawn = (parameter - (-uniform.clamp_min(1e-30).log()).log()).argmax(-1)
        return F.one_hot(drawn, self.width).to(p) + p - p.detach()

    def features(self, x: Tensor) -> Tensor:
        """One-hot classes."""
        return F.one_hot(x.long(), self.width).to(torch.get_default_dtype())

    def point(self, features: Tensor) -> Tensor:
        """Likeliest class number."""
        return features.argmax(-1).to(features)


FAMILIES = ("gaussian", "student_t", "bernoulli", "categorical")


class MixedLikelihood:
    r"""Independent cells given the decoder's output, each column of its own family.

    .. math:: \log p(x_{obs}|z) = \sum_{j:\,s_j = 1} \log p_j(x_j \mid f_j(z))

    Values x (…, D) hold numbers, and class numbers 0 … C−1 in categorical columns. Features (…, F) are what networks
    read and write: numbers as they are, classes one-hot.

    Arguments:
        families: one a column: ``gaussian``, ``student_t`` (mean, scale, degrees of freedom), ``bernoulli`` or
            ``("categorical", C)``.

    Raises:
        ValueError: no columns, an unknown family, or fewer than 2 classes.

    References:
        MIWAE: Deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Example:
        >>> likelihood = MixedLikelihood(["gaussian", ("categorical", 3)])
        >>> likelihood.features(torch.tensor([[0.5, 2.0]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000]])
        >>> likelihood.log_prob(torch.tensor([[0.0, 2.0]]), torch.zeros(1, likelihood.n_parameters)).shape
        torch.Size([1, 2])
    """

    def __init__(self, families: Sequence[str | tuple[str, int]]) -> None:
        check_int("columns", len(families), fix="declare a family for each column")
        self.families = [_build(f) for f in families]
        # Columns of one family are computed together.
        keys = [(type(f).__name__, f.width) for f in self.families]
        self.groups = [[j for j, k in enumerate(keys) if k == key] for key in dict.fromkeys(keys)]
        self.n_columns = len(families)
        self.n_parameters = sum(f.parameters for f in self.families)
        self.n_features = sum(f.width for f in self.families)
        order = [j for group in self.groups for j in group]
        # Picking columns copies every draw: a slice where they are in order already.
        self._inverse = slice(None) if order == sorted(order) else [order.index(j) for j in range(self.n_columns)]
        self.feature_column = torch.tensor([j for j in order for _ in range(self.families[j].width)])

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Log-density (…, D) of each cell, nats; cells of a missing value must hold any valid one."""
        cells = [f.log_prob(x[..., group], part) for f, group, part in self._split(parameter)]
        return torch.cat(cells, -1)[..., self._inverse]

    def mean(self, parameter: Tensor) -> Tensor:
        """Expected features (…, F)."""
        return torch.cat([f.mean(part).flatten(-2) for f, _, part in self._split(parameter)], -1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Features (…, F) drawn from every cell's law."""
        return torch.cat([f.sample(part, generator).flatten(-2) for f, _, part in self._split(parameter)], -1)

    def features(self, x: Tensor) -> Tensor:
        """Features (…, F) of values (…, D)."""
        groups = [(self.families[group[0]], group) for group in self.groups]
        return torch.cat([f.features(x[..., group]).flatten(-2) for f, group in groups], -1).to(x.dtype)

    def point(self, features: Tensor) -> Tensor:
        """Values (…, D) of features (…, F): expectations of numbers, the likeliest class."""
        parts, start = [], 0
        for group in self.groups:
            f = self.families[group[0]]
            stop = start + len(group) * f.width
            parts.append(f.point(features[..., start:stop].unflatten(-1, (len(group), f.width))))
            start = stop
        return torch.cat(parts, -1)[..., self._inverse]

    def _split(self, parameter: Tensor) -> list[tuple[Family, list[int], Tensor]]:
        out, start = [], 0
        for group in self.groups:
            f = self.families[group[0]]
            stop = start + len(group) * f.parameters
            # (…, parameters, count): a linear decoder writes all means first, then all scales.
            part = parameter[..., start:stop].unflatten(-1, (f.parameters, len(group))).transpose(-1, -2)
            out.append((f, group, part))
            start = stop
        return out


def _build(family: str | tuple[str, int]) -> Family:
    name, classes = (family, 0) if isinstance(family, str) else family
    check_choice("likelihood", name, FAMILIES)
    if name == "categorical":
        return Classes(classes)
    plain: dict[str, Callable[[], Family]] = {"gaussian": Gaussian, "student_t": StudentsT, "bernoulli": Binary}
    return plain[name]()


def _scale(raw: Tensor) -> Tensor:
    return F.softplus(raw) + MIN_SCALE


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)
