"""The rows of several judges, and what a run says of its data, in words."""

from __future__ import annotations

from typing import Any

from latentebm.report.words import shown

__all__ = ["HEAD", "panel_rows", "panel_sentence", "remarks"]

HEAD = ("images", "TV, mean of judges", "each judge", "what the model means", "disagreed", "Fréchet", "energy distance")
SIDES = {
    "untilted": "untilted draws",
    "tilted": "tilted draws",
    "real": "real images held out",
    "reconstructed": "the same, reconstructed",
}


def panel_sentence(panel: dict[str, Any]) -> str:
    """What the panel's table shows, with the judges' accuracies.

    Example:
        >>> "insider" in panel_sentence({"accuracy": {"small convnet": 0.99, "insider": 0.9}})
        False
    """
    own = {name: f"{100 * value:.1f} %" for name, value in panel["accuracy"].items()}
    insider = own.pop("insider", "–")
    listed = ", ".join(f"{name} {value}" for name, value in own.items())
    return (
        f"Class shares as judges of different make read them, who know real images only ({listed} right on test "
        f"images), and as one does who knows the model's reconstructions too ({insider}): what a stranger sees, and "
        "what the model means. In brackets: 95 % intervals that hold the draws' and the judges' spread. Disagreed: "
        "images that these judges do not all read alike. The distances are to real images in fixed features, without "
        "any judge; the real images' own are those between their two halves."
    )


def panel_rows(panel: dict[str, Any]) -> list[list[str]]:
    """A row for each set of images that the panel has read.

    Example:
        >>> side = {"tv": 0.1, "tv_interval": [0.05, 0.15], "each": {"a": {"tv": 0.1}, "b": {"tv": 0.2}},
        ...     "meant": {"tv": 0.04}, "disagreed": 0.25,
        ...     "fixed_features": {"frechet": 0.0123, "energy_distance": 0.01, "p_value": 0.005}}
        >>> panel_rows({"tilted": side})[0][:5]
        ['tilted draws', '0.100 (0.050–0.150)', '0.100, 0.200', '0.040', '25.0 %']
    """
    rows = []
    for key, title in SIDES.items():
        if (side := panel.get(key)) is None:
            continue
        low, high = side["tv_interval"]
        fixed = side["fixed_features"]
        rows.append(
            [
                title,
                f"{shown(side['tv'])} ({shown(low)}–{shown(high)})",
                ", ".join(shown(judge["tv"]) for judge in side["each"].values()),
                shown(side["meant"]["tv"]),
                f"{shown(side['disagreed'], '.1f', 100)} %",
                shown(fixed["frechet"], ".4f"),
                f"{shown(fixed['energy_distance'], '.4f')} (p = {shown(fixed['p_value'])})",
            ]
        )
    return rows


def remarks(metrics: dict[str, Any]) -> list[str]:
    """What the generator learned from and why, and what is odd about the data, one sentence each.

    Example:
        >>> remarks({"generator": {"sources": {"learn_from": "biased", "why": "As asked."}}, "notes": ["Few images."]})
        ['The generator learned from the biased images. As asked.', 'Few images.']
        >>> remarks({"generator": {"prior_components": 1}})
        ['Its codes come from a learned prior, one normal distribution.']
    """
    sources = metrics["generator"].get("sources")
    said = []
    if sources is not None:
        which = "biased images"
        if sources["learn_from"] == "both":
            share, how = 100 * sources["reference_share"], sources["augment"]
            which = f"biased images and from the reference ({share:.0f} % of every batch, augmentation {how})"
        said.append(f"The generator learned from the {which}. {sources['why']}")
        said += ["A critic sharpened its images."] if sources.get("pull") else []
    if components := metrics["generator"].get("prior_components"):
        kind = "one normal distribution" if components == 1 else f"a mixture of {components} normal distributions"
        said.append(f"Its codes come from a learned prior, {kind}.")
    return [*said, *metrics.get("notes", [])]
