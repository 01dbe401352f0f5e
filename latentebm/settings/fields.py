"""The settings themselves: what a `Debiaser` takes, and what the whole job takes besides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from latentebm.checks import check_int, check_number, fail
from latentebm.registry import stored
from latentebm.settings.declaration import check_plain, setting, settings_of
from latentebm.settings.values import OfReference, Uniform, parse_classes, parse_proportions, parse_target

if TYPE_CHECKING:
    # Not at run time: settings are checked before torch, which takes seconds to import, is needed.
    from latentebm.models.networks import Network
    from latentebm.sampling import Sampler
    from latentebm.tilting.method import EnergyBuilder
    from latentebm.tilting.objectives import Objective
    from latentebm.tilting.spaces import Space

__all__ = ["FLAT", "OBJECTIVES", "SAMPLERS", "DebiaserSettings", "Settings", "check_alone"]

FLAT = 3  # dimensions up to which codes fill a standard normal prior
DATA, MODEL, TILT, DRAWS, RUN = "Data", "Model", "Tilt", "Draws", "Run"

OBJECTIVE = (
    "likelihood (log Z from prior draws; best balance), jensen (a bound of it, needs a penalty), nce (classifier of "
    "reference against prior codes), contrastive (gradient of log Z from Langevin chains), amortized (from a sampler "
    "that learns along; slower), score (score matching of the codes: says less about the balance of classes that lie "
    "apart), or in Python an Objective"
)
LEARN_FROM = (
    "images that the VAE learns from: biased (the reference serves the tilt alone), both, or auto (both where the "
    "biased images, weighted as the reference says, are worth less than 58 % of their number)"
)
SAMPLERS = ("snis", "langevin", "mala", "pmc", "hmc", "nuts", "auto")
PATHS: dict[str, Any] = {"data": str | PathLike, "out": str | PathLike}
PATHS |= dict.fromkeys(("data_root", "reference"), str | PathLike | None)
OBJECTIVES = ("likelihood", "jensen", "nce", "contrastive", "score", "amortized")
SAMPLER = (
    "snis (importance resampling in one pass), mala or langevin (one Metropolis-adjusted Langevin chain per draw), pmc "
    "(the same from a replay buffer), hmc or nuts (four long chains; slow), auto (snis where its weights are "
    "healthy, else i-SIR or tempered particles), or in Python a Sampler"
)


@dataclass(kw_only=True, eq=False, repr=False)
class DebiaserSettings:
    """What a `Debiaser` is asked, stored as given; `settings_of` lists them with their help.

    Example:
        >>> [s.name for s in settings_of(DebiaserSettings) if s.of.startswith("objective")]
        ['negatives', 'energy_penalty', 'calibrate']
    """

    latent_dim: int = setting(2, "length of the code", MODEL, low=1)
    network: Literal["mlp", "conv"] | Network = setting(
        "mlp", "mlp or conv, or in Python a Network", MODEL, names=("mlp", "conv")
    )
    width: int = setting(512, "hidden units of the VAE", MODEL, of="network.width", low=1)
    likelihood: Literal["bernoulli", "gaussian"] = setting(
        "bernoulli", "of the pixels: bernoulli or gaussian", MODEL, names=("bernoulli", "gaussian")
    )
    prior: Literal["auto", "normal", "mixture"] = setting(
        "auto",
        "what codes are drawn from: normal (standard normal), mixture (of up to 160 normals, learned from the codes of "
        "the trained VAE) or auto (mixture above three dimensions with likelihood, jensen or nce, and below with "
        "likelihood in latent space, else normal)",
        MODEL,
        names=("auto", "normal", "mixture"),
    )
    kl_weight: float | None = setting(
        None,
        "weight of the KL term in training: above 1 the codes fill a normal prior more evenly, below 1 images are "
        "sharper; by default 1 up to three dimensions, above them the dispersion of the pixels, which is low where "
        "they are grey, or 1.5 with a normal prior and a VAE of the biased images alone",
        MODEL,
        kind=float,
    )
    epochs: int = setting(40, "passes over the biased images", MODEL, low=1)
    batch_size: int = setting(256, "images of each step of the VAE's training", MODEL, low=1)
    learn_from: Literal["auto", "biased", "both"] = setting("auto", LEARN_FROM, MODEL, names=("auto", "biased", "both"))
    reference_share: str | float = setting(
        "auto",
        "share of the reference in what the VAE learns from, where it learns from both: above 0, below 1, or auto "
        "(half)",
        MODEL,
        kind=str,
    )
    augment: Literal["auto", "none", "slight", "affine"] = setting(
        "auto",
        "small random changes of these reference images: none, slight or affine (turn, scale, shear, shift), or auto "
        "(none from 600 of them on, below as large as still lead from biased images to such as lie among them)",
        MODEL,
        names=("auto", "none", "slight", "affine"),
    )
    sharpen: str | float = setting(
        "auto",
        "pull of a critic that sharpens the VAE's images in a quarter as many further epochs, in lengths of the "
        "likelihood's gradient: 0 for none, or auto (0.5 above three dimensions where the VAE learns from both and "
        "pixels are grey, of a dispersion up to 0.3)",
        MODEL,
        kind=str,
    )
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "of the VAE's training: auto, bf16 or fp32", MODEL, names=("auto", "bf16", "fp32")
    )
    space: Literal["latent", "data"] | Space = setting(
        "latent",
        "where the energy lives: latent (on the code) or data (on the decoded image), or in Python a Space",
        TILT,
        names=("latent", "data"),
    )
    positives: Literal["reconstructed", "raw"] = setting(
        "reconstructed",
        "data space only: reference images reconstructed by the VAE, or raw ones (whose weights collapse)",
        TILT,
        of="space.positives",
        names=("reconstructed", "raw"),
    )
    objective: str | Objective = setting("likelihood", OBJECTIVE, TILT, names=OBJECTIVES)
    negatives: Literal["persistent", "prior"] = setting(
        "persistent",
        "contrastive objective only: where its chains start, persistent or prior",
        TILT,
        of="objective.negatives_from",
        names=("persistent", "prior"),
    )
    energy_penalty: float = setting(
        0.25, "jensen objective only: weight λ of its penalty; 1/4 is calibrated", TILT, of="objective.penalty"
    )
    gradient_penalty: float = setting(0.0, "weight of the squared gradient norm of the energy; 0 for none", TILT, low=0)
    calibrate: bool = setting(
        False, "jensen objective only: turn its energy into the log-ratio by artanh", TILT, of="objective.calibrate"
    )
    energy: EnergyBuilder | None = setting(
        None, "in Python only: a function from the shape of one input to a module (N, *shape) -> (N,)", "", kind=str
    )
    posterior: Literal["draws", "means"] = setting(
        "draws",
        "fit on posterior draws, or on the means alone as some published work did",
        TILT,
        of="space.posterior",
        names=("draws", "means"),
    )
    folds: int | None = setting(
        None,
        "ensemble members, each fitted without its own fold of the reference; by default 5, in data space 3",
        TILT,
        kind=int,
        of="space.folds",
        low=1,
    )
    clusters: int | None = setting(
        None,
        "clusters of the biased images that a first tilt reweights to the reference's shares (latent space, likelihood "
        "objective); by default 20 below 1,000 reference images, where over a learned prior no network but the shares "
        "of its normals follow them; 0 for no first tilt; where the VAE learned from both, changed reference images "
        "take their place",
        TILT,
        kind=int,
        of="space.clusters",
        low=0,
    )
    tilt_steps: int | None = setting(
        None,
        "most optimizer steps of the energy, where it is a network; by default 1,500, in data space 400",
        TILT,
        kind=int,
        of="space.steps",
        low=1,
    )
    sampler: str | Sampler = setting("snis", SAMPLER, DRAWS, names=SAMPLERS)
    pool: int | None = setting(
        None,
        "prior draws of snis; by default 1,000,000, in data space 100,000",
        DRAWS,
        kind=int,
        of="space.pool",
        low=1,
    )
    langevin_steps: int = setting(200, "steps of each chain of mala and pmc", DRAWS, low=1)
    seed: int = setting(0, "random seed of the whole run", RUN, low=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps or xpu", RUN)


def check_alone(settings: DebiaserSettings) -> None:
    """Check all that can be known of a `Debiaser`'s settings without torch.

    Raises:
        ValueError: one lies outside its range, or would be read by nothing.

    Example:
        >>> check_alone(DebiaserSettings(learn_from="biased", augment="slight"))
        Traceback (most recent call last):
        ValueError: augment: expected auto with learn_from=biased, got 'slight'; pass learn_from=both
    """
    check_plain(settings)
    if settings.kl_weight is not None:
        check_number("kl_weight", settings.kl_weight, low=0, open_low=True)
    if settings.reference_share != "auto":
        check_number("reference_share", settings.reference_share, low=0, high=0.99, open_low=True)
    if settings.sharpen != "auto":
        check_number("sharpen", settings.sharpen, low=0, high=10)
    for name in ("reference_share", "augment"):
        if settings.learn_from == "biased" and getattr(settings, name) != "auto":
            raise fail(name, "auto with learn_from=biased", repr(getattr(settings, name)), "pass learn_from=both")


@dataclass(kw_only=True, eq=False)
class Settings(DebiaserSettings):
    """What `debias` is asked to do: the settings of a `Debiaser`, and those of data and run.

    `classes`, `proportions` and `target` are read into values of `latentebm.settings.values` here, once.

    Raises:
        ValueError: a setting lies outside its range, or two of them exclude each other.

    Example:
        >>> str(Settings(latent_dim=10).target), str(Settings(proportions=[0.75, 0.25]).proportions)
        ('uniform', '0.75,0.25')
    """

    data: str = setting("mnist", "mnist, fashion-mnist, an .npz or .npy file, or a folder of images", DATA)
    data_root: str | None = setting(None, "folder of torchvision's files", DATA, kind=str)
    resize: int | None = setting(
        None, "height and width that all images are resized to; by default they keep theirs", DATA, kind=int
    )
    classes: Any = setting(
        None, "0-4, 0,2,7, class names, or all; by default 0-4 of the built-in data, else all", DATA, kind=str
    )
    proportions: Any = setting(
        None,
        "class shares of the biased set: .12,.33,.28,.20,.07 (default for five classes), or long-tail:50 (first class "
        "50 times the last)",
        DATA,
        kind=str,
    )
    biased_fraction: float = setting(0.6, "share of the images the biased set is cut from", DATA)
    reference_per_class: int | None = setting(
        None, "mean number of reference images per class; by default all there are", DATA, kind=int
    )
    reference: str | None = setting(
        None, "your own reference images, .npz or a folder; all of the data are then the biased set", DATA, kind=str
    )
    target: Any = setting(
        None,
        "wanted shares: uniform, reference (the reference's own), .5,.3,.2, or 0:.5,1:.5; by default uniform, or "
        "reference where you pass one",
        DATA,
        kind=str,
    )
    samples: int = setting(10_000, "images to draw", DRAWS)
    tensorboard: bool = setting(False, "also write event files for TensorBoard into the run folder", RUN)
    out: str = setting("runs/debias", "run folder to write", RUN)
    overwrite: bool = setting(False, "replace an earlier run there", RUN)

    def __post_init__(self) -> None:
        check_alone(self)
        for name, kinds in PATHS.items():
            if not isinstance(path := getattr(self, name), kinds):
                raise fail(name, "a path", repr(path), f"pass for example {name}=images.npz")
        check_int("samples", self.samples)
        if self.resize is not None:
            check_int("resize", self.resize)
        check_number("biased_fraction", self.biased_fraction, low=0, high=1, open_low=True)
        if self.reference_per_class is not None:
            check_int("reference_per_class", self.reference_per_class)
        if not str(self.out).strip():
            raise fail("out", "a folder name", repr(self.out), "pass for example out=runs/first")
        usual = {declared.name: declared.default for declared in settings_of(Settings)}
        for name in ("proportions", "biased_fraction", "reference_per_class"):
            # They cut the data; with a reference of the user's own, all of the data are the biased set.
            if self.reference is not None and getattr(self, name) != usual[name]:
                raise fail(name, "no reference, with which it cannot be combined", "both", "pass one of the two")
        self.classes = parse_classes(self.classes)
        self.proportions = parse_proportions(self.proportions)
        self.target = parse_target(self.target) or (Uniform() if self.reference is None else OfReference())

    def debiaser(self) -> dict[str, Any]:
        """The settings a `Debiaser` takes."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(DebiaserSettings)}

    def saved(self) -> dict[str, Any]:
        """Every setting as a file holds it."""
        return {name: stored(value) for name, value in self.debiaser().items()} | self.plain()

    def plain(self) -> dict[str, Any]:
        """The settings of data and run as text, numbers and None, for a file."""
        own = {field.name for field in dataclasses.fields(self)} - set(self.debiaser())
        values = {name: getattr(self, name) for name in sorted(own)}
        plain = {name: stored(value) for name, value in values.items()}
        return {k: v if v is None or isinstance(v, bool | int | float) else str(values[k]) for k, v in plain.items()}
