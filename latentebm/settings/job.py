"""Every setting of the main job in one place, with its default, its unit and its check."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from latentebm.checks import check_int, check_number, fail

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Settings", "is_long_tail", "parse_classes", "parse_proportions", "parse_target", "read_config"]

LITERATURE = {5: (0.12, 0.33, 0.28, 0.20, 0.07)}  # the published split of five classes
DEBIASER_FIELDS = (
    *("latent_dim", "network", "width", "likelihood", "kl_weight", "epochs", "space", "positives"),
    *("objective", "negatives", "energy_penalty"),
    *(
        "gradient_penalty",
        "calibrate",
        "posterior",
        "folds",
        "clusters",
        "tilt_steps",
        "sampler",
        "pool",
        "langevin_steps",
    ),
    *("precision", "seed", "device"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `debias` is asked to do; the fields a `Debiaser` shares mean the same there.

    Attributes:
        data: ``mnist``, ``fashion-mnist``, an .npz file or a folder of class folders.
        data_root: folder of torchvision's files.
        classes: ``0-4``, ``0,2,7``, class names, or ``all``; None for 0-4 of the built-in data, else all.
        proportions: class shares of the biased set: numbers, or ``long-tail:R`` for an exponential tail in which
            the first class is R times the last, cut so that no class gives more than `biased_fraction` of its images.
        biased_fraction: share of the images that the biased set is cut from, in (0, 1].
        reference_per_class: mean reference images a class; None for all there is.
        reference: .npz of reference images; all of `data` is then the biased set.
        target: ``uniform``, ``reference`` (the reference's own shares), numbers, or ``name:share`` pairs.
        samples: images to draw.
        out: the run folder.
        overwrite: replace an earlier run there.

    Raises:
        ValueError: a setting lies outside its range.

    Example:
        >>> Settings(latent_dim=10).target
        'uniform'
    """

    data: str = "mnist"
    data_root: str | None = None
    classes: str | None = None
    proportions: str | None = None
    biased_fraction: float = 0.6
    reference_per_class: int | None = None
    reference: str | None = None
    target: str | None = None
    latent_dim: int = 2
    network: str = "mlp"
    width: int = 512
    likelihood: str = "bernoulli"
    kl_weight: float | None = None
    epochs: int = 40
    space: str = "latent"
    positives: str = "reconstructed"
    objective: str = "likelihood"
    negatives: str = "persistent"
    energy_penalty: float = 0.25
    gradient_penalty: float = 0.0
    calibrate: bool = False
    posterior: str = "draws"
    folds: int | None = None
    clusters: int | None = None
    tilt_steps: int | None = None
    sampler: str = "snis"
    pool: int | None = None
    langevin_steps: int = 200
    precision: str = "auto"
    samples: int = 10_000
    seed: int = 0
    device: str = "auto"
    out: str = "runs/debias"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_int("samples", self.samples)
        check_int("seed", self.seed, low=0)
        check_number("biased_fraction", self.biased_fraction, low=0, high=1, open_low=True)
        if self.reference_per_class is not None:
            check_int("reference_per_class", self.reference_per_class)
        for name in ("proportions", "biased_fraction", "reference_per_class"):
            # They cut the data; with a reference of the user's own, all of the data are the biased set.
            if self.reference is not None and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise fail(name, "no --reference beside it", "both", "pass one of the two")
        if not self.out.strip():
            raise fail("out", "a folder name", repr(self.out), "pass for example out=runs/first")
        if self.target is None:
            object.__setattr__(self, "target", "uniform" if self.reference is None else "reference")

    def debiaser(self) -> dict[str, Any]:
        """The settings a `Debiaser` takes."""
        return {name: getattr(self, name) for name in DEBIASER_FIELDS}


def read_config(path: Path | str) -> dict[str, Any]:
    """Read settings from a .json or .toml file, or from the ``config.json`` of an earlier run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it can't be parsed, or names unknown settings.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "c.toml"
        >>> _ = path.write_text("latent_dim = 10")
        >>> read_config(path)
        {'latent_dim': 10}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config: expected a file at {path}, found none; check the path")
    text = path.read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise fail("config", "valid TOML or JSON", str(error), "mend the file") from None
    values = values.get("settings", values) if isinstance(values, Mapping) else {}
    known = {f.name for f in fields(Settings)}
    unknown = sorted(set(values) - known)
    if unknown or not values:
        got = ", ".join(unknown) or "none"
        raise fail("config", f"settings among {', '.join(sorted(known))}", got, "remove or rename them")
    return dict(values)


def parse_classes(text: str | None, names: tuple[str, ...], built_in: bool) -> list[int]:
    """Class indices of ``0-4``, ``0,2,7``, class names or ``all``; by default the first five of built-in data.

    Raises:
        ValueError: an unknown class, or fewer than two.

    Example:
        >>> parse_classes("0-2,cat", ("a", "b", "c", "cat"), False)
        [0, 1, 2, 3]
    """
    text = text or ("0-4" if built_in and len(names) > 5 else "all")
    if text == "all":
        return list(range(len(names)))
    chosen: list[int] = []
    for token in (t.strip() for t in text.split(",")):
        low, dash, high = token.partition("-")
        if token in names:
            chosen.append(names.index(token))
        elif dash and low.isdecimal() and high.isdecimal():
            chosen += range(int(low), int(high) + 1)
        elif token.isdecimal():
            chosen.append(int(token))
        else:
            raise fail(
                "classes", "indices, ranges or names of classes", repr(token), f"choose among {', '.join(names)}"
            )
    outside = [k for k in chosen if k >= len(names)]
    if outside or len(set(chosen)) != len(chosen) or len(chosen) < 2:
        expected = f"at least two different classes of 0-{len(names) - 1}"
        raise fail("classes", expected, repr(text), "pass for example classes=0-1")
    return chosen


def is_long_tail(proportions: str | None) -> bool:
    """Whether proportions are asked for as ``long-tail:R``.

    Example:
        >>> is_long_tail("long-tail:50"), is_long_tail(None)
        (True, False)
    """
    return proportions is not None and proportions.startswith("long-tail:")


def parse_proportions(text: str | None, n_classes: int) -> list[float]:
    """Biased shares from numbers, ``long-tail:R``, or the published split of five classes.

    Raises:
        ValueError: not numbers, another count or sum, or no default for this many classes.

    Example:
        >>> [round(p, 2) for p in parse_proportions("long-tail:4", 3)]
        [0.57, 0.29, 0.14]
    """
    if text is None:
        if n_classes not in LITERATURE:
            fix = "pass --proportions with one share a class, or --reference"
            raise fail("proportions", f"{n_classes} shares", "none", fix)
        return list(LITERATURE[n_classes])
    if is_long_tail(text):
        ratio = check_number("proportions", text.partition(":")[2], low=1, high=1e9, fix="pass long-tail:50")
        sizes = [ratio ** (-k / (n_classes - 1)) for k in range(n_classes)]
        return [s / sum(sizes) for s in sizes]
    return _shares("proportions", text.replace(",", " ").split(), n_classes)


def parse_target(text: str, names: tuple[str, ...]) -> list[float]:
    """Target shares from ``uniform``, numbers, or ``name:share`` pairs (unnamed classes get nothing).

    Arguments:
        text: the setting.
        names: names of the run's classes.

    Raises:
        ValueError: unknown names, or shares that are none.

    Example:
        >>> parse_target("b:.25, a:.75", ("a", "b"))
        [0.75, 0.25]
        >>> parse_target("Ankle boot:.5,Bag:.5", ("Bag", "Coat", "Ankle boot"))
        [0.5, 0.0, 0.5]
    """
    if text == "uniform":
        return [1 / len(names)] * len(names)
    if ":" not in text:
        return _shares("target", text.replace(",", " ").split(), len(names))
    # Names may hold blanks; without a comma, blanks part the pairs.
    parts = [t.strip() for t in (text.split(",") if "," in text else text.split())]
    pairs = {name.strip(): share for name, _, share in (t.rpartition(":") for t in parts)}
    # A class of built-in data goes by its number as well, which begins its name: "0 - zero".
    short = {name.partition(" - ")[0]: name for name in names}
    pairs = {name if name in names else short.get(name, name): share for name, share in pairs.items()}
    unknown = sorted(set(pairs) - set(names))
    if unknown or len(pairs) != len(parts):
        raise fail("target", f"each class once, of {', '.join(names)}", ", ".join(unknown) or text, "mend the names")
    return _shares("target", [pairs.get(name, "0") for name in names], len(names))


def _shares(name: str, tokens: list[str], n_classes: int) -> list[float]:
    fix = f"pass {n_classes} numbers that sum to 1"
    if len(tokens) != n_classes:
        raise fail(name, f"{n_classes} shares, one a class", len(tokens), fix)
    values = [check_number(name, t, low=0, high=1, fix=fix) for t in tokens]
    if abs(sum(values) - 1) > 1e-6:
        raise fail(name, "shares that sum to 1", f"a sum of {sum(values):.6g}", fix)
    return values
