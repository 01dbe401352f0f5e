"""The one training loop, for the VAE, the tilt, the classifier and every energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from latentebm.checks import check_choice, check_int, check_number, fail
from latentebm.progress import Sized, Track, silent
from latentebm.training.average import Average
from latentebm.training.best import BestState
from latentebm.training.guard import Guard

__all__ = ["DivergedError", "FitResult", "fit"]

SCHEDULES = ("constant", "cosine", "onecycle")


class DivergedError(RuntimeError):
    """Training met a non-finite loss; the module holds its last good state.

    Example:
        >>> issubclass(DivergedError, RuntimeError)
        True
    """


@dataclass
class FitResult:
    """What a fit did: mean training losses and validation scores between checks, in the loss's units.

    Attributes:
        steps: batches used, each an optimizer step unless it was rolled back.
        losses: mean training loss since the check before, one a check.
        scores: validation scores (lower is better), () or (M,) tensors: of the start, then one a check.
        best: the best score, () or (M,); NaN without `validate`.
        stopped_early: whether patience ran out.
        log: what the guard did, a line a rollback.

    Example:
        >>> FitResult(steps=1).stopped_early
        False
    """

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)
    best: Tensor = field(default_factory=lambda: torch.tensor(math.nan))
    stopped_early: bool = False
    log: list[str] = field(default_factory=list)


def fit(
    module: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Sized[Any],
    *,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    schedule: str = "constant",
    clip: float | None = None,
    validate: Callable[[], Tensor] | None = None,
    every: int = 100,
    patience: int | None = None,
    guard: Guard | None = None,
    average: float = 0.0,
    track: Track = silent,
    description: str = "fit",
) -> FitResult:
    r"""Minimise `loss` over `batches` by AdamW, keeping the state of the best validation score.

    .. math:: \theta \leftarrow \theta - \eta_t\, \mathrm{AdamW}(\nabla_\theta\, \mathrm{loss}(\mathrm{batch}_t))

    Arguments:
        module: whose parameters are fitted, in place; frozen ones (``requires_grad=False``) stay.
        loss: maps one item of `batches` to a scalar.
        batches: sized iterable, one item a step.
        lr: peak learning rate.
        weight_decay: decoupled weight decay.
        schedule: ``constant``, ``cosine`` (to zero) or ``onecycle`` (warm up for 10 %, then cosine).
        clip: bound of the gradient's norm, or none.
        validate: score without gradient, lower is better: scalar, or (M,) for a module of M stacked members, whose
            best rows are then kept one by one.
        every: steps between validations.
        patience: validations without any improvement before stopping, or none.
        guard: watches every step; after a bad one the module goes back to a good state, the optimizer starts afresh
            at half the learning rate, and the log says so.
        average: decay of a moving average of the parameters, which is what the module holds at the end; 0 for the last
            parameters themselves.
        track: shows progress.
        description: name of the progress bar.

    Returns:
        The record of the fit.

    Raises:
        ValueError: an argument lies outside its range, or both `validate` and `average` choose the final state.
        DivergedError: the loss is NaN or infinite; the module is set back to its best or first state. With a guard:
            training diverged once more than its retries; the module is set back to its last good state.

    References:
        Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2019), https://arxiv.org/abs/1711.05101

    Example:
        >>> net = nn.Linear(1, 1)
        >>> result = fit(net, lambda x: (net(x) - 3).square().mean(), [torch.ones(4, 1)] * 300, lr=0.1)
        >>> abs(net(torch.ones(1, 1)).item() - 3) < 0.01
        True
    """
    check_choice("schedule", schedule, SCHEDULES)
    check_number("lr", lr, low=0, open_low=True)
    check_int("every", every)
    if clip is not None:
        check_number("clip", clip, low=0, open_low=True)
    if average and validate is not None:
        raise fail("average", "0 where validate chooses the state", average, "pass one of the two")
    mean = Average(module, average) if average else None
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, foreach=True)
    scheduler = LambdaLR(optimizer, _multiplier(schedule, len(batches)))
    keeper = BestState(module)
    result = FitResult()
    recent: list[Tensor] = []
    moved = False
    if validate is not None:
        # Where training helps nobody, the start is the best state.
        _improving(result, keeper, module, validate, None)
    for batch in track(batches, description):
        result.steps += 1
        value, wrong = _evaluate(loss, batch, guard)
        if not wrong:
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            norm = _clipped(parameters, clip) if guard or clip is not None else 0.0
            wrong = f"a gradient of norm {norm}" if guard and not math.isfinite(norm) else ""
        if guard and wrong:
            result.log.append(_roll_back(guard, wrong, result.steps, optimizer, scheduler))
            if mean:
                mean.restart()
        else:
            optimizer.step()
            moved = True
            recent.append(value.detach())
            if mean:
                mean.update()
        if moved:  # before the first step of the optimizer there is nothing to schedule
            scheduler.step()
        if guard and not wrong:
            guard.passed(result.steps)
        if result.steps % every == 0 or result.steps == len(batches):
            _record(result, recent, keeper)
            if validate is not None and not _improving(result, keeper, module, validate, patience):
                result.stopped_early = result.steps < len(batches)
                break
    if validate is not None:
        keeper.restore()
        result.best = keeper.best
    if mean:
        mean.load()
    return result


def _multiplier(schedule: str, steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)

    def cosine(done: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def onecycle(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return cosine((step - warm) / max(1, steps - warm))

    shapes: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: cosine(step / max(1, steps)),
        "onecycle": onecycle,
    }
    return shapes[schedule]


def _evaluate(loss: Callable[[Any], Tensor], batch: Any, guard: Guard | None) -> tuple[Tensor, str]:
    """The loss, and what the guard finds wrong with it; chains that meet an energy of −∞ are such a thing."""
    if guard is None:
        return loss(batch), ""
    try:
        value = loss(batch)
    except FloatingPointError as error:
        return torch.tensor(math.nan), str(error)
    return value, guard.trouble(value)


def _clipped(parameters: list[nn.Parameter], clip: float | None) -> float:
    """Norm of the gradients, which are left clipped."""
    return float(nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip))


def _roll_back(guard: Guard, wrong: str, step: int, optimizer: torch.optim.Optimizer, scheduler: LambdaLR) -> str:
    """Go back to the guard's good state at half the learning rate, and say so."""
    good = guard.roll_back()
    if guard.rollbacks > guard.retries:
        raise DivergedError(
            f"loss: expected a finite, settled training, got {wrong} at step {step} after {guard.retries} rollbacks; "
            f"the state of step {good} is kept; lower the learning rate or the chains' step"
        )
    optimizer.state.clear()  # the moments belong to the way that led astray
    scheduler.base_lrs = [lr / 2 for lr in scheduler.base_lrs]
    return f"step {step}: {wrong}; back to step {good}, peak learning rate {scheduler.base_lrs[0]:.3g}"


def _record(result: FitResult, recent: list[Tensor], keeper: BestState) -> None:
    if not recent:
        return
    mean = torch.stack(recent).mean().item()
    recent.clear()
    if not math.isfinite(mean):
        keeper.restore()
        raise DivergedError(
            f"loss: expected a finite value, got {mean} by step {result.steps}; lower the learning rate"
        )
    result.losses.append(mean)


def _improving(
    result: FitResult, keeper: BestState, module: nn.Module, validate: Callable[[], Tensor], patience: int | None
) -> bool:
    """Validate, keep what is best, and say whether to go on."""
    was_training = module.training
    module.eval()
    with torch.no_grad():
        score = validate()
    module.train(was_training)
    result.scores.append(score)
    keeper.update(score)
    return patience is None or keeper.stale < patience
