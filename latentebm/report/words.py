"""A run's numbers in words: what was found, whether to trust it, and what to worry about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latentebm.sampling.importance.weights import LEAST_ESS

__all__ = ["as_read", "balance", "course", "finding", "headline", "quality", "reliability", "shown", "worries"]

LOW = 0.1  # recall or coverage below which most kinds of real images are missed
COPIES = 0.6  # share of draws nearer to a reference image than to as many unseen ones; one half is fair
APART = 0.05  # change of total variation by the correction of the classifier's confusions that is worth a word
SMALL_P = 0.01
OFF = 0.1  # total variation to the target above which shares are not balanced


def shown(value: float | None, form: str = ".3f", factor: float = 1.0) -> str:
    """A number as it is printed, a dash where it is missing.

    Example:
        >>> shown(0.25, ".1f", 100), shown(None), shown(float("nan"))
        ('25.0', '–', '–')
    """
    return "–" if value is None or not math.isfinite(value) else format(factor * value, form)


def as_read(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics that hold the shares of ``untilted`` and ``tilted`` draws: several judges' mean, or the one judge's.

    Every sentence, table and figure that speaks of class shares takes them from here, so that they agree.

    Example:
        >>> as_read({"tilted": {"tv": 0.1}, "panel": {"tilted": {"tv": 0.2}}})["tilted"]["tv"]
        0.2
        >>> as_read({"tilted": {"tv": 0.1}})["tilted"]["tv"]  # runs of earlier versions had one judge
        0.1
    """
    panel: Mapping[str, Any] | None = metrics.get("panel")
    return panel or metrics


def headline(metrics: dict[str, Any]) -> str:
    """The class that the tilt moved most, or the gain where no classifier could judge.

    Example:
        >>> data = {"class_names": ["cat", "dog"]}
        >>> headline({"judged": True, "data": data, "target": [0.5, 0.5], "untilted": {"shares": [0.9, 0.1]},
        ...           "tilted": {"shares": [0.55, 0.45]}})
        'Class cat: 90.0 → 55.0 %, target 50 %'
    """
    if not metrics["judged"]:
        gain = metrics["tilted"]["heldout_gain"]
        verb = "gain" if gain is None or gain >= 0 else "lose"
        return f"Held-out reference images {verb} {shown(gain if gain is None else abs(gain))} nats each"
    (before, after), wanted = (as_read(metrics)[side]["shares"] for side in ("untilted", "tilted")), metrics["target"]
    k = max(range(len(wanted)), key=lambda k: abs((after[k] or 0) - (before[k] or 0)))
    name, moved = metrics["data"]["class_names"][k], [shown(side[k], ".1f", 100) for side in (before, after)]
    return f"Class {name}: {moved[0]} → {moved[1]} %, target {shown(wanted[k], '.3g', 100)} %"


def course(before: float | None, after: float | None) -> str:
    """How a number changed, at the three decimals it is printed with.

    Example:
        >>> course(0.2, 0.1), course(0.1, 0.2), course(0.1981, 0.1979)
        ('falls', 'rises', 'stays')
    """
    if before is None or after is None:
        return "goes"
    step = round(after, 3) - round(before, 3)
    return "stays" if step == 0 else "falls" if step < 0 else "rises"


def finding(metrics: dict[str, Any]) -> str:
    """The run in one sentence.

    Example:
        >>> finding({"judged": False, "tilted": {"heldout_gain": 0.5}})
        'The tilt adds 0.500 nats to the mean log-likelihood bound of a held-out reference image.'
    """
    if not metrics["judged"]:
        gain = metrics["tilted"]["heldout_gain"]
        if gain is not None and gain < 0:
            return (
                f"The tilt takes {shown(-gain)} nats from the mean log-likelihood bound of a held-out reference image: "
                "the reference says how much of each kind there should be, and too little of what each is like."
            )
        return f"The tilt adds {shown(gain)} nats to the mean log-likelihood bound of a held-out reference image."
    sides = as_read(metrics)
    before, after = sides["untilted"]["tv"], sides["tilted"]["tv"]
    low, high = sides["tilted"]["tv_interval"] or (None, None)
    return (
        f"The distance between the model's class shares and the target {course(before, after)} from "
        f"{shown(before)} to {shown(after)} (total variation, 95 % interval {shown(low)} to {shown(high)})."
    )


def reliability(metrics: dict[str, Any]) -> str:
    """Whether the importance weights can be trusted, and why.

    Example:
        >>> reliability({"tilted": {"reliable": False, "ess": 0.001, "pareto_k": 0.9, "pareto_k_threshold": 0.7}})
        'The importance weights collapsed: effective sample size 0.1 % (needs 1 %), Pareto k̂ 0.90 (needs below 0...'
    """
    t = metrics["tilted"]
    if t.get("unmade"):
        return (
            f"The model never produced {', '.join(t['unmade'])}, so reweighting cannot add it. "
            "Leave that class out of the target, or train the model with more of it."
        )
    if not t.get("mixed", True):
        return (
            f"The long chains do not agree: R̂ {shown(t['rhat'], '.2f')}. Each explored only a part of the "
            "distribution; draw by snis or mala, or draw more."
        )
    if t.get("why"):
        return f"{t['why'][0].upper()}{t['why'][1:]}."
    size, tail = f"effective sample size {shown(t['ess'], '.3g', 100)} %", shown(t["pareto_k"], ".2f")
    if t["reliable"]:
        return f"The importance weights are healthy: {size}, Pareto k̂ {tail}."
    fault, few = ("collapsed", "carry") if (t["ess"] or 0) < LEAST_ESS else ("have a heavy tail", "may carry")
    return (
        f"The importance weights {fault}: {size} (needs {100 * LEAST_ESS:g} %), Pareto k̂ {tail} "
        f"(needs below {shown(t['pareto_k_threshold'], '.2f')}). A few draws {few} almost all the weight; do not "
        "use these numbers. A calibrated objective, more reference images or more folds help."
    )


def quality(metrics: dict[str, Any]) -> str:
    """How good single draws are, and whether they are copies; empty where nothing was measured.

    Example:
        >>> quality({"untilted": {"frechet": 9.0}, "tilted": {"frechet": 8.0, "recall": 0.6, "copied": 0.5}})
        'Fréchet distance 9.0 before, 8.0 after; recall 0.600; 50 % nearer to a reference image than to unseen ones ...'
    """
    after, before = metrics["tilted"], metrics["untilted"] or {}
    found = []
    if after.get("frechet") is not None:
        found.append(
            f"Fréchet distance {shown(before.get('frechet'), '.1f')} before, {shown(after['frechet'], '.1f')} after"
        )
    found += [f"{name} {shown(after[name])}" for name in ("precision", "recall") if after.get(name) is not None]
    if after.get("copied") is not None:
        share = shown(after["copied"], ".0f", 100)
        found.append(f"{share} % nearer to a reference image than to unseen ones (fair: 50 %)")
    return f"{'; '.join(found)}." if found else ""


def balance(metrics: dict[str, Any]) -> tuple[str, str]:
    """Whether the balance is right (``good``, ``bad`` or ``note``) and why; the weights' health is another matter.

    Without labels it is told by clusters of raw reference images.

    Example:
        >>> clusters = {"tv": 0.29, "interval": [0.27, 0.31], "floor": 0.04, "balanced": False, "lacking": [2],
        ...             "reference": [0.5, 0.3, 0.2], "draws": [0.6, 0.35, 0.05]}
        >>> balance({"judged": False, "clusters": clusters})
        ('bad', "Shares of 3 clusters ... differ by 0.290 (0.270–0.310) ... reference's share: cluster 3 (20 → 5 %).")
    """
    if metrics["judged"]:
        side = as_read(metrics)["tilted"]
        tv, ends = side["tv"], side.get("tv_interval") or (None, None)
        if tv is None:
            return "note", "The draws could not be judged."
        tone = "good" if tv <= OFF else "bad" if (ends[0] or 0) > OFF else "note"
        return (
            tone,
            f"Class shares are {shown(tv)} from the target ({shown(ends[0])}–{shown(ends[1])}, total variation).",
        )
    found = metrics.get("clusters")
    if not found:
        return "note", "Nothing says whether the balance is right: no labels, and too few images to compare clusters."
    if found["balanced"] is None:
        return "note", "The draws lack the noise of raw images, and no gap parts these into clusters to compare."
    low, high = found["interval"]
    sentence = (
        f"Shares of {len(found['reference'])} clusters of raw images differ by {shown(found['tv'])} ({shown(low)}–"
        f"{shown(high)}) between reference and draws, where chance alone reaches {shown(found['floor'])}."
    )
    parts = [
        f"{k + 1} ({shown(found['reference'][k], '.0f', 100)} → {shown(found['draws'][k], '.0f', 100)} %)"
        for k in found["lacking"]
    ]
    lacking = f" Less than half of the reference's share: cluster {', '.join(parts)}." if parts else ""
    return "good" if found["balanced"] else "bad", sentence + lacking


def worries(metrics: dict[str, Any]) -> list[str]:
    """What a reader should know before using the draws, one sentence each; empty where nothing stands out.

    Example:
        >>> worries({"judged": False, "tilted": {"stein": {"p_value": 0.001, "draws": 500}}})
        ['The Stein test says that the draws do not follow the tilt: p = 0.001 over 500 draws.']
    """
    t = metrics["tilted"]
    found = _judged_worries(metrics) if metrics["judged"] else []
    if (t.get("copied") or 0) > COPIES:
        found.append(
            f"{shown(t['copied'], '.0f', 100)} % of the draws lie nearer to a reference image than to as many unseen "
            "ones (fair: 50 %): the model copies."
        )
    if (t.get("duplicates") or 0) > LOW:
        repeated = shown(t["duplicates"], ".0f", 100)
        found.append(f"{repeated} % of the draws repeat another one: widen the pool or draw fewer.")
    stein = t.get("stein", {})
    if (stein.get("p_value") or 1) < SMALL_P:
        p = shown(stein["p_value"])
        found.append(f"The Stein test says that the draws do not follow the tilt: p = {p} over {stein['draws']} draws.")
    return found


def _judged_worries(metrics: dict[str, Any]) -> list[str]:
    t, names, found = metrics["tilted"], metrics["data"]["class_names"], []
    rest = {"recall": "of the real images resemble a draw", "coverage": "of the real images have a draw nearby"}
    for measure, words in rest.items():
        value = t.get(measure)
        if value is not None and value < LOW:
            found.append(
                f"Only {shown(value, '.2g', 100)} % {words} ({measure} {shown(value)}): the model misses most kinds."
            )
    pairs = zip(names, metrics["target"], as_read(metrics)["tilted"]["shares"], strict=True)
    lost = [name for name, wanted, share in pairs if (share or 0) < wanted / 2]
    if lost:
        found.append(f"Less than half of the wanted share is reached in: {', '.join(lost)}.")
    if (t.get("tv_corrected") or 0) - (t["tv"] or 0) > APART:
        found.append(
            f"Freed of the classifier's known confusions the distance to the target is {shown(t['tv_corrected'])}, not "
            f"{shown(t['tv'])}: some of the balance is the classifier's error."
        )
    if (t["other"] or 0) > LOW:
        found.append(f"{shown(t['other'], '.0f', 100)} % of the draws look like none of the wanted classes.")
    return found
