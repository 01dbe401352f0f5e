"""A joint energy-based model of MNIST at 14 × 14: it classifies, and a separate classifier knows its draws."""

import torch
from torch import nn
from torch.nn import functional as F

from latentebm.data.batches import Minibatches
from latentebm.data.images import load_images
from latentebm.objectives.jem import jem_loss
from latentebm.sampling import PMC, ConditionalSampler, ImproperSGLD
from latentebm.training.fit import fit
from tests.sampling_targets import gen

KERNEL = ImproperSGLD(alpha=2.0, sigma=0.01)


def digits(train, n):
    """The first n digits, averaged over 2 × 2 pixels, in [−1, 1]."""
    data = load_images("mnist", train=train)
    x = data.images[:n].float() / 255
    return F.avg_pool2d(x, 2) * 2 - 1, data.labels[:n].long()


def convnet(activation, width, seed):
    torch.manual_seed(seed)
    first = nn.Conv2d(1, width, 4, stride=2, padding=2)
    second = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
    return nn.Sequential(
        first,
        activation(),
        second,
        activation(),
        nn.Flatten(),
        nn.Linear(32 * width, 64),
        activation(),
        nn.Linear(64, 10),
    )


def classify(net, x, y, epochs, noise, seed):
    g = gen(seed)
    batches = Minibatches(x, y, batch_size=128, epochs=epochs, generator=gen(seed + 1))
    blurred = lambda x: x + noise * torch.randn(x.shape, generator=g)  # noqa: E731
    fit(net, lambda b: F.cross_entropy(net(blurred(b[0])), b[1]), batches, lr=3e-3, schedule="cosine")


def accuracy(net, x, y):
    with torch.no_grad():
        return (net(x).argmax(1) == y).float().mean().item()


def train_jem(x, y, steps, pretraining):
    """Classifier first, then the joint model against persistent chains of given labels."""
    net = convnet(nn.SiLU, 16, seed=0)
    classify(net, x, y, pretraining, 0.03, seed=1)
    mean = x.flatten(1).mean(0)
    spread = torch.linalg.cholesky(torch.cov(x.flatten(1).T) + 1e-3 * torch.eye(196))
    base = lambda n, g: (mean + torch.randn(n, 196, generator=g) @ spread.T).view(n, 1, 14, 14)  # noqa: E731
    sampler, g = ConditionalSampler(net, base, classes=10), gen(2)
    pmc = PMC(KERNEL, n_steps=10, size=2_000)

    def loss(batch):
        x, y = batch
        x = x + 0.03 * torch.randn(x.shape, generator=g)
        fake = pmc.sample(sampler, len(x), generator=g, y=torch.arange(len(x)) % 10)
        return jem_loss(net(x), y, sampler.energy(x, y), sampler.energy(*fake), weight=0.02, penalty=1e-4)

    batches = Minibatches(x[: steps * 100], y[: steps * 100], batch_size=100, epochs=1, generator=gen(3))
    fit(net, loss, batches, lr=5e-4, schedule="cosine", clip=1.0)
    return net, sampler, pmc


def test_jem_of_mnist():
    x, y = digits(True, 60_000)
    x_test, y_test = digits(False, 10_000)
    judge = convnet(nn.ReLU, 24, seed=9)
    classify(judge, x, y, 2, 0.1, seed=5)
    assert accuracy(judge, x_test, y_test) > 0.97
    net, sampler, pmc = train_jem(x, y, steps=350, pretraining=4)
    assert accuracy(net, x_test, y_test) >= 0.97
    wanted = torch.arange(1_000) % 10
    persistent = pmc.sample(sampler, 1_000, generator=gen(6), y=wanted)
    assert accuracy(judge, persistent.x, wanted) >= 0.90
    fresh = sampler.sample(500, KERNEL, 100, generator=gen(8), y=wanted[:500])
    assert accuracy(judge, fresh.x, wanted[:500]) >= 0.90
