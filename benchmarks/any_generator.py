"""A small GAN without an encoder and a VAE of the pythae library, trained on biased digits, tilted to balance.

    python benchmarks/any_generator.py [--seed 0] [--models gan pythae] [--gan-steps 2500] [--epochs 10] [--json FILE]

The user's classifier (attribute, class probabilities) and the evaluation classifier learn from disjoint halves of
MNIST's training images. "Other digits" is a classifier of the digits 5-9, which never saw a class that is balanced
here.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from pythae.models import VAE, VAEConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from latentebm import SNIS, Attribute, WrappedModel, biased_split, load_images, tilt_attributes, tilt_generator
from latentebm.data.images import Images
from latentebm.evaluation.judges import Classifier, fit_classifier
from latentebm.evaluation.metrics import judge
from latentebm.files import write_json
from latentebm.tilting.supports import SupportWarning

DIM, SHARES, POOL, SAMPLES = 10, [0.12, 0.33, 0.28, 0.20, 0.07], 50_000, 5000


def train_gan(images: Tensor, steps: int, generator: torch.Generator) -> nn.Module:
    """Relativistic pairing with penalties on both gradients keeps a perceptron GAN from dropping digits."""
    g = nn.Sequential(
        *(nn.Linear(DIM, 256), nn.BatchNorm1d(256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()),
        *(nn.Linear(256, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))),
    )
    d = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    optimizers = [torch.optim.Adam(m.parameters(), 1e-3, (0.0, 0.99)) for m in (g, d)]
    for step in range(steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        real = images[torch.randint(len(images), (128,), generator=generator)].requires_grad_()
        z = torch.randn(256, DIM, generator=generator)
        fake = g(z[:128]).detach().requires_grad_()
        on_real, on_fake = d(real), d(fake)
        slopes = torch.autograd.grad(on_real.sum() + on_fake.sum(), (real, fake), create_graph=True)
        penalty = sum(s.square().flatten(1).sum(1).mean() for s in slopes)
        _step(optimizers[1], F.softplus(on_fake - on_real).mean() + 0.05 * penalty)
        _step(optimizers[0], F.softplus(d(real.detach()) - d(g(z[128:]))).mean())
    return g.eval().requires_grad_(False)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def train_pythae(images: Tensor, epochs: int, generator: torch.Generator) -> WrappedModel:
    """The library's own VAE and loss; its encoder hands out posterior draws."""
    vae = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=DIM, reconstruction_loss="bce"))
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(128):
            _step(optimizer, vae({"data": images[rows]}).loss)
    vae.eval().requires_grad_(False)

    def encode(x: Tensor) -> Tensor:
        posterior = vae.encoder(x)
        noise = torch.randn(posterior["embedding"].shape, generator=generator)
        return posterior["embedding"] + (0.5 * posterior["log_covariance"]).exp() * noise

    return WrappedModel(vae.decoder, DIM, key="reconstruction", encoder=encode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="+", default=["gan", "pythae"], choices=["gan", "pythae"])
    parser.add_argument("--gan-steps", type=int, default=2500)
    parser.add_argument("--epochs", type=int, default=10, help="of the pythae VAE")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    rng = torch.Generator().manual_seed(arguments.seed)
    data, test = load_images("mnist"), load_images("mnist", train=False)
    biased, reference = biased_split(data.labels, range(5), SHARES, generator=rng)
    real = test[torch.nonzero(test.labels < 5).flatten()].float01()
    halves = torch.randperm(len(data), generator=rng).chunk(2)
    referee, own = (fit_classifier(data[rows], epochs=2, generator=rng) for rows in halves)
    others = fit_classifier(data[torch.nonzero(data.labels >= 5).flatten()], epochs=2, generator=rng)
    found = []
    for kind in arguments.models:
        model = train(kind, data[biased].float01(), arguments, rng)
        for name, tilted in routes(model, data[reference], own, others, rng).items():
            line = {"model": kind, "route": name, "seed": arguments.seed}
            found.append({**line, **measure(tilted, model, real, referee, rng)})
            print(json.dumps(found[-1]), flush=True)
            if arguments.json:
                write_json(arguments.json, found)
    print_table(found)


def train(kind: str, images: Tensor, arguments: argparse.Namespace, rng: torch.Generator) -> WrappedModel:
    if kind == "gan":
        return WrappedModel(train_gan(images, arguments.gan_steps, rng), DIM)
    return train_pythae(images, arguments.epochs, rng)


def routes(
    model: WrappedModel, reference: Images, own: Classifier, others: Classifier, rng: torch.Generator
) -> dict[str, Callable | None]:
    images = reference.float01()

    def digit(x: Tensor) -> Tensor:
        return own.probabilities(own.embed(x))

    def by(features: Callable[[Tensor], Tensor] | None) -> Callable:
        return lambda: tilt_generator(model, images, features=features, generator=rng)

    def five(x: Tensor) -> Tensor:
        p = digit(x)
        return torch.cat([p[:, :5], p[:, 5:].sum(1, keepdim=True)], 1)

    wanted = Attribute(five, {**dict.fromkeys(range(5), 0.2), "other": 0.0}, "digit")
    return {
        "untilted": None,
        "attribute: own classifier, uniform, no reference": lambda: tilt_attributes(model, wanted, generator=rng),
        "reference: class probabilities": by(lambda x: digit(x)[:, :5]),
        "reference: logits of a classifier of other digits": by(lambda x: others.head(others.embed(x))[:, 5:]),
        "reference: features of a classifier of other digits": by(others.embed),
        # Without features the codes are compared, or where there is no encoder the pixels.
        "reference: pixels" if model.encoder is None else "reference: codes": by(None),
    }


def measure(fit: Callable | None, model: WrappedModel, real: Tensor, referee: Classifier, rng: torch.Generator) -> dict:
    start, line = time.perf_counter(), {}
    if fit is None:
        x = model.decode(torch.randn(SAMPLES, DIM, generator=rng))
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SupportWarning)
            draws = SNIS(pool=POOL).draw(fit(), SAMPLES, generator=rng)
        x = draws.x
        line = {name: draws.diagnostics[name] for name in ("ess", "pareto_k", "reliable")}
        line["warned"] = any(issubclass(w.category, SupportWarning) for w in caught)
    judged = judge(x, real, referee, range(5), [0.2] * 5, generator=rng).as_dict()
    kept = {name: judged[name] for name in ("shares", "other", "tv", "tv_interval", "frechet", "coverage")}
    return {**line, **kept, "seconds": time.perf_counter() - start}


def print_table(found: list[dict]) -> None:
    table = Table(title="Digits 0-4 by models without a tilt of their own: total variation to uniform by route")
    for head in ("model", "route", "TV", "off target", "ESS", "Fréchet", "coverage", "seconds"):
        table.add_column(head, justify="left" if head in ("model", "route") else "right")
    for row in found:
        ess = f"{100 * row['ess']:.1f} %" if "ess" in row else "–"
        cells = (f"{row['tv']:.3f}", f"{row['other']:.3f}", ess, f"{row['frechet']:.0f}", f"{row['coverage']:.3f}")
        table.add_row(row["model"], row["route"], *cells, f"{row['seconds']:.0f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
