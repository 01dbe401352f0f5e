"""What a run of ``latentebm tilt`` leaves: tilt, draws, figures, shares, report and model card."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentebm.data.images import load_images
from latentebm.disk.manifest import add_files
from latentebm.evaluation.fidelity import copied_share
from latentebm.evaluation.fixed_features import fixed_features
from latentebm.files import write_atomic, write_json, write_text
from latentebm.models.seen.image_scale import scale_of, to_unit
from latentebm.models.tilts import LatentTilt
from latentebm.plots import plot_image_grid
from latentebm.sampling import Draws
from latentebm.workflow.run import save_samples
from latentebm.workflow.tilt_card import tilt_card, tilt_page
from latentebm.workflow.tilt_settings import TiltSettings

__all__ = ["write_tilt_run"]

SHOWN, Z = 64, 1.96
IMAGES, COPIES = 4, 1_000  # dimensions of a batch of images; reference images that draws are compared with


def write_tilt_run(
    folder: Path,
    settings: TiltSettings,
    tilt: LatentTilt,
    chosen: Sequence[Any],
    prior: Tensor,
    draws: Draws,
    rng: torch.Generator,
) -> None:
    """Write a tilt, its draws, their figures and numbers, the report and the model card into a folder."""
    energy, low = getattr(getattr(tilt.net, "energy", None), "gain", None), scale_of(tilt.model)
    metrics: dict[str, Any] = {
        "tilted": draws.diagnostics,
        "gain": energy,
        "samples": settings.samples,
        "copied": _copied(settings, to_unit(prior, low), to_unit(draws.x, low), rng),
        "shares": {
            name: _shares(function, target or _held(function, settings, low), prior, draws)
            for name, function, target in chosen
        },
    }
    tilt.save(folder)
    draws.x, prior = to_unit(draws.x, low), to_unit(prior, low)
    if prior.ndim == IMAGES:
        by_energy = _distinct(draws)
        ends = torch.cat([by_energy[: SHOWN // 2], by_energy[-(SHOWN // 2) :]]) if len(by_energy) > SHOWN else by_energy
        metrics["energies"] = (-draws.log_weight[ends]).tolist()
        figure = plot_image_grid(draws.x[ends.to(draws.x.device)], "by energy", columns=8)
        write_atomic(folder / "figures" / "energy.png", figure.savefig)
        for name, images in (("before", prior), ("after", draws.x)):
            figure = plot_image_grid(images[:SHOWN], name, columns=8)
            write_atomic(folder / "figures" / f"{name}.png", figure.savefig)
    save_samples(folder / "samples.npz", draws)
    write_json(folder / "metrics.json", metrics)
    plain = settings.plain()
    add_files(folder, ["samples.npz"], tilt_run=plain)
    write_text(folder / "README.md", tilt_card(metrics, plain))
    write_text(folder / "report.html", tilt_page(folder, metrics, plain))


def _copied(
    settings: TiltSettings, before: Tensor, after: Tensor, generator: torch.Generator
) -> dict[str, float] | None:
    """Share of draws nearer to a reference image than to any of as many untilted draws, before and after the tilt."""
    if settings.reference is None or before.ndim != IMAGES:
        return None
    half, seen = len(before) // 2, load_images(settings.reference, name="reference").float01()[:COPIES]
    seen = seen[:half]
    if len(seen) < 2:
        return None
    known, (own, other) = fixed_features(seen.to(before.device)), fixed_features(before).split(half)[:2]
    sides = {"before": other, "after": fixed_features(after)}
    return {name: copied_share(x, known, own, generator=generator) for name, x in sides.items()}


def _distinct(draws: Draws) -> Tensor:
    """Places of draws from the likeliest, each that was drawn more than once a single time."""
    found: dict[bytes, int] = {}
    for place in draws.log_weight.argsort(descending=True).tolist():
        found.setdefault(draws.latent[place].cpu().numpy().tobytes(), place)
    return torch.tensor(list(found.values()))


def _held(function: Callable[[Tensor], Any], settings: TiltSettings, low: float) -> dict[str, float]:
    """Shares of an attribute's values in the reference, which a tilt to it should reach."""
    if settings.reference is None:
        return {}
    images = load_images(settings.reference, name="reference").float01()
    found = _read(function, images if low == 0 else 2 * images - 1)
    return {value: found.count(value) / len(found) for value in sorted({*found})}


def _read(function: Callable[[Tensor], Any], x: Tensor) -> list[str]:
    return [str(v.item() if hasattr(v, "item") else v) for v in function(x)]


def _shares(
    function: Callable[[Tensor], Any], target: Mapping[Any, float], before: Tensor, after: Draws
) -> list[dict[str, Any]]:
    """Shares of each value before and after, the latter with its 95 % (Wilson) interval."""
    values = [_read(function, x) for x in (before, after.x)]
    wanted, rows = {str(key): share for key, share in target.items()}, []
    weighed = after.diagnostics["ess"] * (after.diagnostics.get("decodes") or after.diagnostics["pool"])
    count = 1 / (1 / len(values[1]) + 1 / weighed)  # draws from a pool tell no more than its weights do
    for key in [*wanted, *sorted({*values[0], *values[1]} - {*wanted})]:
        p, q = (side.count(key) / len(side) for side in values)
        share = wanted.get(key, 0.0 if wanted else None)
        rows.append({"value": key, "target": share, "before": p, "after": q, "interval": _wilson(q, count)})
    return rows


def _wilson(p: float, n: float) -> list[float]:
    centre, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return [max(0.0, (centre - half) / (1 + Z * Z / n)), min(1.0, (centre + half) / (1 + Z * Z / n))]
