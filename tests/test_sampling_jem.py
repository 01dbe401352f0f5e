"""A joint energy-based model of MNIST: it classifies, and a separate classifier knows its draws."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from latentebm.data.batches import Minibatches
from latentebm.data.images import load_images
from latentebm.objectives.contrast import jem_loss
from latentebm.sampling import PMC, ConditionalSampler, ImproperSGLD
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation
from tests.sampling_targets import gen

KERNEL = ImproperSGLD(alpha=2.0, sigma=0.01)


def digits(train):
    """All digits, in [−1, 1]."""
    data = load_images("mnist", train=train)
    return data.images.float() / 127.5 - 1, data.labels.long()


def convnet(activation, width, seed):
    """28 → 14 → 7 → 4 pixels a side by strides of two."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, width, 5, stride=2, padding=2), activation()]
    layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), activation()]
    layers += [nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), activation(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32 * width, 64), activation(), nn.Linear(64, 10))


def classify(net, x, y, epochs, noise, seed):
    g = gen(seed)
    batches = Minibatches(x, y, batch_size=128, epochs=epochs, generator=gen(seed + 1))
    blurred = lambda x: x + noise * torch.randn(x.shape, generator=g)  # noqa: E731
    fit(net, lambda b: F.cross_entropy(net(blurred(b[0])), b[1]), batches, Optimisation(lr=3e-3, schedule="cosine"))


def accuracy(net, x, y):
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def base_law(x):
    """The normal law of the images' mean and covariance."""
    mean, covariance = x.flatten(1).mean(0), torch.cov(x.flatten(1).T)
    spread = torch.linalg.cholesky(covariance + 1e-3 * torch.eye(784))
    return lambda n, g: (mean + torch.randn(n, 784, generator=g) @ spread.T).view(n, 1, 28, 28)


def train_jem(net, base, x, y, steps, seed=0):
    """Train a classifier on as a joint model, against persistent chains of given labels."""
    sampler, g = ConditionalSampler(net, base, classes=10), gen(10 * seed + 2)
    pmc = PMC(KERNEL, n_steps=8, size=1_000)

    def loss(batch):
        x, y = batch
        x = x + 0.2 * torch.randn(x.shape, generator=g)
        fake = pmc.sample(sampler, len(x), generator=g, y=torch.arange(len(x)) % 10)
        return jem_loss(net(x), y, sampler.energy(x, y), sampler.energy(*fake), weight=0.05, penalty=1e-4)

    rows = slice(steps * 100)
    batches = Minibatches(x[rows], y[rows], batch_size=100, epochs=1, generator=gen(10 * seed + 3))
    fit(net, loss, batches, Optimisation(lr=5e-4, schedule="cosine", clip=1.0))
    return sampler, pmc


def test_jem_of_mnist():
    x, y = digits(train=True)
    x_test, y_test = digits(train=False)
    judge = convnet(nn.ReLU, 12, seed=9)
    classify(judge, x[-25_000:], y[-25_000:], 2, 0.1, seed=5)
    assert accuracy(judge, x_test, y_test) > 0.95
    net = convnet(nn.SiLU, 10, seed=0)
    classify(net, x[:25_000], y[:25_000], 3, 0.2, seed=1)
    base = base_law(x)
    mere = ConditionalSampler(copy.deepcopy(net), base, classes=10)
    sampler, pmc = train_jem(net, base, x, y, steps=200)
    assert accuracy(net, x_test, y_test) >= 0.96
    wanted = torch.arange(1_000) % 10
    persistent = pmc.sample(sampler, 1_000, generator=gen(6), y=wanted)
    assert accuracy(judge, persistent.x, wanted) >= 0.90
    starts = sampler.start(300, generator=gen(8), y=wanted[:300])
    assert accuracy(judge, starts.x, wanted[:300]) < 0.2
    fresh = sampler.advance(starts, KERNEL, 100, generator=gen(8))
    assert accuracy(judge, fresh.x, wanted[:300]) >= 0.90
    # Draws of a mere classifier are read as well, but they are no images: their pixels run away from the data's.
    assert 0.8 < fresh.x.std() / x.std() < 1.4
    assert mere.sample(50, KERNEL, 100, generator=gen(8)).x.std() / x.std() > 3
