"""Targets with closed forms, shared by the sampling tests."""

import math

import torch

A = torch.tensor([[1.0, 0.3], [0.3, 0.5]])
B = torch.tensor([0.8, -0.4])
C = 0.7


class GaussianTilt:
    """N(0, I) tilted by E = ½z'Az − b'z + c: log Z = −.981156, mean and covariance in closed form."""

    log_z = -0.981156
    rho = 0.632767
    mean = torch.tensor([0.453608, -0.357388])
    covariance = torch.tensor([[0.515464, -0.103093], [-0.103093, 0.687285]])
    dim = 2

    def sample_base(self, n, *, generator):
        return torch.randn(n, self.dim, generator=generator)

    def log_base(self, u):
        return -0.5 * u.square().sum(1) - 0.5 * self.dim * math.log(2 * math.pi)

    def energy(self, u):
        return 0.5 * ((u @ A) * u).sum(1) - u @ B + C

    def potential(self, u):
        return self.energy(u) - self.log_base(u)

    def decode(self, u):
        return 2 * u


class MixtureTilt(GaussianTilt):
    """N(0, 1) tilted to .3 N(−2, .5²) + .7 N(2, .5²): log Z = 0, P(z > 0) = .699987, relative ESS .11598."""

    log_z, rho, positive, dim = 0.0, 0.11598, 0.699987, 1

    def __init__(self, centre=2.0, sd=0.5, weight=0.7):
        self.centre, self.sd, self.weight = centre, sd, weight

    def energy(self, u):
        z = u[:, 0]
        parts = [
            math.log(w) - 0.5 * ((z - m) / self.sd) ** 2 - math.log(self.sd) - 0.5 * math.log(2 * math.pi)
            for w, m in ((1 - self.weight, -self.centre), (self.weight, self.centre))
        ]
        return self.log_base(u) - torch.logaddexp(*parts)


def assert_mean(values, expected, size=None):
    """The mean of independent values lies within the α = 1e-6 band (4.9 standard errors) of what is expected."""
    values = values.double()
    se = values.std(0) / math.sqrt(size or len(values))
    assert bool(((values.mean(0) - expected).abs() < 4.9 * se).all()), (values.mean(0), expected, se)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)
