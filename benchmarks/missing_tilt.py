"""The parts ``tilt`` and ``images`` of the missing-data benchmark: a MIWAE of MNAR rows, tilted by a few MCAR rows.

Run them by ``python benchmarks/missing.py tilt images``; ``python benchmarks/missing_tilt.py`` draws the figure of the
images of seed 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import wasserstein_distance
from sklearn.datasets import load_breast_cancer

from latentebm.data.images import load_images
from latentebm.missing import MIWAEImputer, impute, tilt_miwae
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.mechanisms import MCAR, ImagePixels, SelfMasking, make_missing
from latentebm.missing.miwae import MIWAE
from latentebm.models.energies import EnergyNet
from latentebm.rng import seeded
from latentebm.sampling.importance.weights import normalised
from latentebm.tilting.fit_tilt import TiltRecipe

__all__ = ["SETTINGS", "cancer", "error", "images", "tilt_one"]

IMAGES, REFERENCE, HITS = 4000, 400, 100
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "missing-digits-imputed.png"
TILT = {"members": 3, "recipe": TiltRecipe(steps=400, patience=8)}
HARD = SelfMasking("hard", columns=range(15), intercept=0.0)
SOFT = SelfMasking("logistic", columns=range(15), slope=2.0, intercept=0.0)
SETTINGS = {
    "hard above the mean; mlp": (HARD, "mlp"),
    "hard above the mean; linear": (HARD, "linear"),
    "logistic, slope 2; mlp": (SOFT, "mlp"),
}


def cancer() -> np.ndarray:
    """Breast cancer, standardised by its full columns."""
    X = load_breast_cancer().data
    return (X - X.mean(0)) / X.std(0)


def error(X: np.ndarray, done: np.ndarray, cells: np.ndarray, *, root: bool) -> float:
    """Mean squared error over `cells`, or its root."""
    mse = float(np.square(done - X)[cells].mean())
    return mse**0.5 if root else mse


def tilt_one(mechanism: SelfMasking, decoder: str, seed: int) -> dict[str, float]:
    """Three quarters of the rows self-masked, one quarter MCAR: RMSE on the self-masked ones, fidelity of new rows."""
    X = cancer()
    order = np.random.default_rng(seed).permutation(len(X))
    few, many = order[: len(X) // 4], order[len(X) // 4 :]
    _, mask = make_missing(X, mechanism, random_state=seed)
    _, mask[few] = make_missing(X[few], MCAR(), 0.5, random_state=seed)
    one = {"members": 1, "width": 128, "k": 20}  # what is tilted is a single model
    settings = one | {"latent_dim": 10, "steps": 1000, "lr": 3e-3, "decoder": decoder, "random_state": seed}
    holed = np.where(mask, X, np.nan)
    biased = MIWAEImputer(**settings).fit(holed[many])
    union = MIWAEImputer(**settings).fit(holed)
    x, m = (torch.from_numpy(part).float() for part in biased.codec_.encode(pd.DataFrame(holed)))
    centre = torch.tensor([c.centre for c in biased.codec_.codes])
    scale = torch.tensor([c.scale for c in biased.codec_.codes])

    def rmse(values: torch.Tensor) -> float:
        return error(X[many], (centre + scale * values).numpy(), ~mask[many], root=True)

    generator = torch.Generator().manual_seed(seed)
    model = biased.model_
    plain = model.sample(torch.randn(10_000, 10, generator=generator), generator=generator)
    out = {
        "MIWAE of the MNAR rows": rmse(impute(model, x[many], m[many], generator=generator).x),
        "no tilt, W1 of generated marginals": marginal_distance(X, centre + scale * plain),
    }
    for space in ("latent", "data"):
        tilted = tilt_miwae(model, x[few], m[few], space=space, generator=generator, **TILT)
        rows, ess = tilted.sample(10_000, generator=generator)
        out[f"{space} tilt"] = rmse(tilted.impute(x[many], m[many], generator=generator).x)
        out[f"{space} tilt, ESS of generated rows"] = ess
        out[f"{space} tilt, W1 of generated marginals"] = marginal_distance(X, centre + scale * rows)
    out["MIWAE of all rows together"] = error(X[many], union.transform(holed)[many], ~mask[many], root=True)
    return out


def marginal_distance(X: np.ndarray, rows: torch.Tensor) -> float:
    """Wasserstein-1 distance of generated and true marginals, mean over the masked columns, in standard deviations."""
    return float(np.mean([wasserstein_distance(rows[:, j].numpy(), X[:, j]) for j in range(15)]))


class Digits(NamedTuple):
    """Binary pixels (N, 784), masks, the reference rows, the holed rows that are judged, and the pixels of the box."""

    x: torch.Tensor
    mask: torch.Tensor
    few: slice
    many: slice
    hit: torch.Tensor
    box: torch.Tensor


def digits(seed: int) -> Digits:
    """Bright central pixels lost from every 3 and 8; of a tenth of the images, half of all pixels by chance instead."""
    data = load_images("mnist")
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    # Missingness by intensity needs two intensities to be a mechanism of its own: pixels are binarised.
    x, y = (data.images[rows].flatten(1) > 127).float(), data.labels[rows]
    few, many = slice(0, REFERENCE), slice(REFERENCE, None)
    box = torch.zeros(28, 28, dtype=torch.bool)
    box[7:21, 7:21] = True
    _, lost = make_missing(x[many].reshape(-1, 28, 28), ImagePixels(0.5, "center", digits=[3, 8]), y=y[many].numpy())
    _, some = make_missing(x[few], MCAR(), 0.5, random_state=seed)
    hit = torch.isin(y[many], torch.tensor([3, 8])).nonzero().flatten()[:HITS] + REFERENCE
    return Digits(x, torch.cat([some, lost.flatten(1)]).float(), few, many, hit, box.flatten())


def images(seed: int) -> dict[str, float]:
    """MNIST 0–9: bright central pixels lost from 3 and 8; RMSE at the lost pixels, and ink generated in the box."""
    data, generator = digits(seed), torch.Generator().manual_seed(seed)
    hit, done, out = (data.x[data.hit], data.mask[data.hit]), {}, {"true: ink": data.x[:, data.box].mean().item()}
    settings = {"draws": 500, "generator": generator}
    model = fitted(data, data.many, seed)
    done["MIWAE"] = impute(model, *hit, **settings).x
    out["MIWAE: ink"] = ink(model.decode(torch.randn(10_000, model.latent_dim, generator=generator)), data)
    recipe = TiltRecipe(steps=300, patience=8, held_out=5000)
    for space in ("latent", "data"):
        tilted = tilt_miwae(
            model, data.x[data.few], data.mask[data.few], space=space, members=3, copies=10, draws=300,
            recipe=recipe, generator=generator,
        )  # fmt: skip
        done[f"{space} tilt"] = tilted.impute(*hit, **settings).x
        rows, out[f"{space} tilt: ESS"] = tilted.sample(10_000, pool=20_000, generator=generator)
        out[f"{space} tilt: ink"] = ink(rows, data)
        if space == "latent":
            out |= evidence(model, tilted.energy, *hit, torch.Generator().manual_seed(seed))
    done["whole image's code"] = reconstruct(model, hit[0], generator)
    done["MIWAE of all images together"] = impute(fitted(data, slice(None), seed), *hit, **settings).x
    lost = hit[1].numpy() == 0
    out |= {f"{n}: RMSE": error(hit[0].numpy(), v.numpy(), lost, root=True) for n, v in done.items()}
    if seed == 0:
        draw_digits(hit[0], hit[1], done)
    return out


def fitted(data: Digits, rows: slice, seed: int) -> MIWAE:
    """A MIWAE of these rows."""
    with seeded(seed):
        model = MIWAE(["bernoulli"] * 784, 16, width=256)
    recipe = MIWAERecipe(k=5, steps=1000)
    fit_miwae(model, data.x[rows], data.mask[rows], recipe, generator=torch.Generator().manual_seed(seed))
    return model


def ink(rows: torch.Tensor, data: Digits) -> float:
    """Mean intensity in the box."""
    return rows[:, data.box].mean().item()


@torch.no_grad()
def reconstruct(model: MIWAE, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Means under the codes of the whole images: what the decoder can make."""
    terms = model.terms(x, torch.ones_like(x), 500, generator=generator)
    weight = normalised(terms.log_weight)
    return (weight.unsqueeze(-1) * model.likelihood.mean(terms.parameter)).sum(0)


@torch.no_grad()
def evidence(
    model: MIWAE, energy: EnergyNet, x: torch.Tensor, mask: torch.Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Nats by which the seen pixels, and the tilt, prefer one code to the other: the holed image's, the whole one's."""
    holed, whole = (model.terms(x, m, 200, generator=generator).z for m in (mask, torch.ones_like(mask)))

    def best(z: torch.Tensor) -> torch.Tensor:
        cells = model.likelihood.log_prob(x * mask, model.decoder(z)) * mask
        return (cells.sum(-1) - 0.5 * z.square().sum(-1)).max(0).values

    return {
        "seen pixels for the holed image's code, nats": (best(holed) - best(whole)).median().item(),
        "latent tilt for the whole image's code, nats": (
            energy(holed.flatten(0, 1)).mean() - energy(whole.flatten(0, 1)).mean()
        ).item(),
    }


def draw_digits(x: torch.Tensor, mask: torch.Tensor, done: dict[str, torch.Tensor]) -> None:
    """Rows: original, holed (lost pixels orange), and what was imputed; one digit per column."""
    holed = x.unsqueeze(-1).repeat(1, 1, 3)
    holed[mask == 0] = torch.tensor([0.835, 0.369, 0.0])
    grey = {"original": x} | done
    rows = {name: v.clamp(0, 1).unsqueeze(-1).repeat(1, 1, 3) for name, v in grey.items()}
    rows = {"original": rows.pop("original"), "seen; lost in orange": holed} | rows
    figure = Figure(figsize=(7.6, 5.4), layout="constrained")
    panels = figure.subplots(len(rows), 10)
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for axes, picture in zip(line, pictures, strict=False):
            axes.imshow(picture.reshape(28, 28, 3).numpy())
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(
            name.replace("MIWAE of all images together", "refitted"), rotation=0, ha="right", va="center"
        )
    figure.savefig(FIGURE, dpi=120)
