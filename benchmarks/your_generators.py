"""Models that are not ours, tilted as they are: a face GAN, a diffusion model of digits, a flow, and CTGAN's TVAE.

    python benchmarks/your_generators.py                     # all; or --parts faces diffusion flow tvae
    python benchmarks/your_generators.py --parts faces --figures docs/figures

Figures go to ``benchmarks/your_generators.json``; rows that are there already are left, so that a stopped run goes on.
Draws and wheels are kept in ``--cache``. The weights of the diffusion model lie in ``notebooks/digits-diffusion``;
``--train`` trains it again: 2,000 steps, 12 minutes of CPU on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusion
import faces
import numpy as np
import torch
from tables import LABEL, adult
from torch import Tensor

from latentebm import Attribute, expected_shares, from_ctgan, from_zuko, tilt_attributes
from latentebm.files import write_atomic, write_json
from latentebm.plots import plot_image_grid
from latentebm.sampling.importance.resampling import resample

RESULTS = Path(__file__).parent / "your_generators.json"
PARTS = ("faces", "diffusion", "flow", "tvae")
FEATURES = ("class probabilities", "pca:24")
DRAWS, DDIM_STEPS = 4000, 10


def add(name: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure a row that is not in the results yet, write it at once, and print it."""
    if name not in (found := results()):
        start = time.process_time()
        row = {**measure(), "cpu_seconds": round(time.process_time() - start, 1)}
        found = {**results(), name: row}  # parts may run side by side
        write_json(RESULTS, found)
    values = ((k, v) for k, v in found[name].items() if isinstance(v, float))
    print(f"{name:44}" + "  ".join(f"{k} {v:.3f}" for k, v in values), flush=True)


def results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def measure_faces(options: argparse.Namespace) -> None:
    model = faces.face_gan(options.cache)
    codes, grey = faces.decoded(model, options.cache / "faces.pt")
    cut = float(torch.quantile(faces.middle(grey), 0.8))
    bright = faces.middle(grey) > cut

    for each in options.each:
        for seed in range(options.seeds):
            name = f"faces: {each} + {each}, seed {seed}"
            add(name, lambda each=each, seed=seed: faces.by_reference(grey, bright, each, seed))
    add("faces: attribute", lambda: faces.by_attribute(model, cut))
    if options.figures is not None:
        faces.grids(model, codes, faces.reference(grey, bright, 25, 0)[0], options.figures)


def measure_diffusion(options: argparse.Namespace) -> None:
    if options.train or not (diffusion.FOLDER / "training.json").is_file():
        diffusion.train(diffusion.FOLDER)
    x = diffusion.pool(diffusion.FOLDER, options.cache / "digits.pt", DRAWS, DDIM_STEPS)
    judges = diffusion.classifiers(0)
    referee = judges[0]
    with torch.no_grad():
        digit = referee.probabilities(referee.embed(x / 2 + 0.5)).argmax(1)
    even = torch.full((len(x),), 1 / len(x), dtype=torch.double)
    add("diffusion: untilted", lambda: diffusion.tv_of(even, digit))
    for name in FEATURES:
        for seed in range(options.seeds):
            one: dict[str, Any] = {}

            def measure(name: str = name, seed: int = seed, one: dict[str, Any] = one) -> dict[str, Any]:
                one.update(diffusion.by_reference(x, name, seed, judges))
                return {k: v for k, v in one.items() if k != "weight"}

            add(f"diffusion: {name}, 25 a class, seed {seed}", measure)
    if options.figures is not None:
        weight = diffusion.by_reference(x, "pca:24", 0, judges)["weight"]
        picks = resample(weight.log(), 96, generator=torch.Generator().manual_seed(0))
        for title, images in (("before", x[:96]), ("after", x[len(x) // 2 :][picks])):
            figure = plot_image_grid(images / 2 + 0.5, f"{title} the tilt", columns=16)
            write_atomic(options.figures / f"diffusion-{title}.png", figure.savefig)


def moons(n: int, rng: torch.Generator) -> Tensor:
    """Two moons of unequal weight: a quarter of the points lies on the upper."""
    t, upper = math.pi * torch.rand(n, generator=rng), torch.rand(n, generator=rng) < 0.25
    x = torch.where(upper[:, None], torch.stack([t.cos(), t.sin()], 1), torch.stack([1 - t.cos(), 0.5 - t.sin()], 1))
    return x + 0.1 * torch.randn(n, 2, generator=rng)


def on_upper(x: Tensor) -> Tensor:
    """Whether a point is nearer to the upper moon's arc."""
    up = (x.norm(dim=1) - 1).abs() + (-x[:, 1]).clamp(min=0)
    low = ((x - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs() + (x[:, 1] - 0.5).clamp(min=0)
    return up < low


def flow() -> dict[str, Any]:
    """A spline flow of two moons, tilted to equal shares; the share in data space by quadrature of its own density."""
    from zuko.flows import NSF

    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = NSF(2, transforms=3, hidden_features=(64, 64))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(500):
        loss = -net().log_prob(moons(256, rng)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model = from_zuko(net)
    upper = Attribute(on_upper, {False: 0.5, True: 0.5}, "upper")
    tilt = tilt_attributes(model, upper, generator=rng)
    z = torch.randn(2000, 2, generator=rng)
    side = torch.linspace(-2.5, 3.5, 401)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        log_p = torch.cat([net().log_prob(part) for part in grid.split(40_000)]).double()
        energy = torch.cat([tilt.energy(model.encode(part)) for part in grid.split(40_000)]).double()
    p, q = log_p.softmax(0), (log_p - energy).softmax(0)
    return {
        "before": float(p[on_upper(grid)].sum()),
        "share": float(q[on_upper(grid)].sum()),
        "share_by_draws": expected_shares(tilt, upper, generator=rng)["upper"][True],
        "inverse_error": float((model.encode(model.decode(z)) - z).abs().max()),
        "ess": float(1 / (q.square() / p.clamp(min=1e-300)).sum()),
        "mass_on_grid": float(log_p.exp().sum() * (side[1] - side[0]) ** 2),
    }


def tvae(cache: Path, epochs: int) -> dict[str, Any]:
    """CTGAN's TVAE of Adult, tilted until half of its rows earn more than 50,000 dollars."""
    from ctgan import TVAE

    wheel = next(cache.glob("fairness-0.1.8-*.whl"), None)
    table = adult(None if wheel is None else str(wheel))
    text = [c for c in table if not np.issubdtype(np.asarray(table[c]).dtype, np.number)]
    table = table.assign(**{c: table[c].astype(object).fillna("?") for c in text})
    np.random.seed(0)
    torch.manual_seed(0)
    synthesizer = TVAE(epochs=epochs, cuda=False)
    synthesizer.fit(table, text)
    model, rng = from_ctgan(synthesizer), torch.Generator().manual_seed(0)
    high = sorted(table[LABEL].unique())[-1]

    def rich(x: Tensor) -> Tensor:
        return torch.from_numpy((model.frame(x)[LABEL] == high).to_numpy())

    wanted = Attribute(rich, {False: 0.5, True: 0.5}, "income")
    tilt = tilt_attributes(model, wanted, pool=20_000, generator=rng)
    z = torch.randn(20_000, model.latent_dim, generator=rng)
    with torch.no_grad():
        x = model.decode(z)
        weight = (-tilt.energy(z)).double().softmax(0)
    seen = rich(x)
    drawn = model.frame(x[resample(weight.log(), 10_000, generator=rng)])
    return {
        "epochs": epochs,
        "table": float((table[LABEL] == high).mean()),
        "before": float(seen.double().mean()),
        "share": float(weight[seen].sum()),
        "share_of_drawn_rows": float((drawn[LABEL] == high).mean()),
        "ess": float(1 / weight.square().sum() / len(weight)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--each", type=int, nargs="+", default=[100, 50, 25], help="bright faces, and as many others")
    parser.add_argument("--epochs", type=int, default=20, help="of TVAE")
    parser.add_argument("--train", action="store_true", help="train the diffusion model again")
    parser.add_argument("--cache", type=Path, default=Path("build/your_generators"), help="draws and wheels")
    parser.add_argument("--figures", type=Path, default=None, help="folder for grids before and after")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    if "faces" in options.parts:
        measure_faces(options)
    if "diffusion" in options.parts:
        measure_diffusion(options)
    if "flow" in options.parts:
        add("flow: two moons", flow)
    if "tvae" in options.parts:
        add("TVAE: Adult", lambda: tvae(options.cache, options.epochs))


if __name__ == "__main__":
    main()
