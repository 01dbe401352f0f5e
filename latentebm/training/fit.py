"""The one training loop, for the VAE, the tilt, the classifier and every energy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from latentebm.checks import check_int, fail
from latentebm.devices import within_memory
from latentebm.disk.checkpoint import fit_checkpoint
from latentebm.progress import Sized, Track, silent
from latentebm.training.keep import Average, BestState, Guard
from latentebm.training.logs import Log, reporter
from latentebm.training.optimisation import Optimisation
from latentebm.training.recorded import Recorder, recordable

__all__ = ["DivergedError", "FitResult", "fit"]

SIZES = ("batch_size", "batch", "base_batch")  # of a recipe, by which the memory of a step goes


class DivergedError(RuntimeError):
    """Training met a non-finite loss; the module holds its last good state."""


@dataclass
class FitResult:
    """What a fit did, in the loss's units; scores are () or (M,), and lower is better."""

    steps: int = 0  # batches used, each an optimizer step unless it was rolled back
    losses: list[float] = field(default_factory=list)  # mean training loss since the previous check, one per check
    scores: list[Tensor] = field(default_factory=list)  # of the start, then one per check
    best: Tensor = field(default_factory=lambda: torch.tensor(math.nan))  # NaN without `validate`
    stopped_early: bool = False  # whether patience ran out
    log: list[str] = field(default_factory=list)  # one line per rollback of the guard


def fit(
    module: nn.Module,
    loss: Callable[[Any], Tensor],
    batches: Sized[Any],
    optimisation: Optimisation | None = None,
    *,
    validate: Callable[[], Tensor] | None = None,
    every: int = 100,
    patience: int | None = None,
    guard: Guard | None = None,
    noise: Sequence[torch.Generator] | None = None,
    state: Sequence[Any] = (),
    data: Sequence[Tensor] = (),
    track: Track = silent,
    log: Log | None = None,
    description: str = "fit",
) -> FitResult:
    r"""Minimise `loss` over `batches` by AdamW, keeping the state of the best validation score.

    Arguments:
        module: fitted in place; frozen parameters (``requires_grad=False``) stay.
        loss: maps one item of `batches`, of which there is one per step, to a scalar.
        validate: score without gradient, lower is better: scalar, or (M,) for a module of M stacked members, whose
            best rows are then kept one by one.
        every: steps between validations.
        patience: validations without any improvement before stopping; None never stops early.
        guard: after a bad step sets the module back to a good state and halves the learning rate, as the log says.
        noise: all generators that the loss draws from, where its steps may be recorded as a CUDA graph: one that reads
            nothing back from the GPU and differs from step to step by its batch, tensors, alone. None never records.
        state: what else the loss changes, for checkpoints: generators, tensors, and what has `state_dict` and
            `load_state_dict`.
        data: what the loss reads beside the batches; a checkpoint is of the same data only.
        log: called at each check with the step and numbers by name, such as ``fit/loss``; see `logged`.

    Raises:
        ValueError: the loss is no scalar, or both `validate` and an average choose the final state.
        DivergedError: the loss is NaN or infinite, with a guard more often than its retries; the module is set back to
            its best, first or last good state.

    Example:
        >>> net = nn.Linear(1, 1)
        >>> distance = lambda x: (net(x) - 3).square().mean()
        >>> result = fit(net, distance, [torch.ones(4, 1)] * 300, Optimisation(lr=0.1))
        >>> abs(net(torch.ones(1, 1)).item() - 3) < 0.01
        True
    """
    optimisation = optimisation or Optimisation()
    check_int("every", every)
    if patience is not None:
        check_int("patience", patience)
    if optimisation.average and validate is not None:
        raise fail("average", "0 where validate chooses the state", optimisation.average, "pass one of the two")
    run = _Run(module, len(batches), optimisation, guard, noise)
    run.report = reporter(description, log)
    sizes = {name: getattr(optimisation, name) for name in SIZES if hasattr(optimisation, name)}
    position = [batches] if hasattr(batches, "load_state_dict") else []
    data = [*data, *getattr(batches, "tensors", ())]
    parts = [run, *position, *state, *(guard.extra if guard else [])]
    with fit_checkpoint(description, parts, optimisation, lambda: data) as saved:
        if not saved.restore():
            run.check(validate)  # where training improves nothing, the start is the best state
        left = [] if run.ended else track(_Left(batches, run.result.steps), description)
        for batch in left:
            with within_memory(**sizes) if sizes else nullcontext():
                run.step(loss, batch)
            if run.result.steps % every == 0 or run.result.steps == run.steps:
                run.check(validate)
                if patience is not None and run.keeper.stale >= patience:
                    run.result.stopped_early = run.result.steps < run.steps
                    break
            saved.step()
        run.end()
        saved.save()
    return run.result


class _Left:
    """What a fit has not used yet of its batches; those that hold their position know it themselves."""

    def __init__(self, batches: Sized[Any], used: int) -> None:
        self.batches, self.used = batches, used

    def __len__(self) -> int:
        return len(self.batches) - self.used

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches) if hasattr(self.batches, "load_state_dict") else islice(self.batches, self.used, None)


class _Run:
    """One fit: its optimizer, the states it keeps and its record."""

    def __init__(
        self,
        module: nn.Module,
        steps: int,
        optimisation: Optimisation,
        guard: Guard | None,
        noise: Sequence[torch.Generator] | None,
    ) -> None:
        self.module, self.steps, self.guard = module, steps, guard
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        # What is clipped or guarded is read back at every step.
        recorded = optimisation.recorded and guard is None and optimisation.clip is None
        recorded = recorded and recordable(self.parameters, noise)
        self.noise = noise if recorded else None
        self.recorder: Recorder | None = None
        self.optimizer = optimisation.optimizer(self.parameters, recorded=recorded)
        self.scheduler = LambdaLR(self.optimizer, optimisation.multiplier(steps))
        self.average = Average(module, optimisation.average) if optimisation.average else None
        self.clip, self.keeper, self.result = optimisation.clip, BestState(module), FitResult()
        self.recent: list[Tensor] = []
        self.moved = self.ended = False
        self.report: Callable[[int, dict[str, float]], None] = lambda step, values: None

    def step(self, loss: Callable[[Any], Tensor], batch: Any) -> None:
        """Move the parameters by one batch, or back to a good state."""
        self.result.steps += 1
        value, trouble = self._recorded(loss, batch) if self.noise is not None else self._plain(loss, batch)
        if trouble:
            self._roll_back(trouble)
        else:
            self.moved = True
            self.recent.append(value.detach())
            if self.average:
                self.average.update()
        if self.moved:  # before the first step of the optimizer there is nothing to schedule
            self.scheduler.step()
        if self.guard and not trouble:
            self.guard.passed(self.result.steps)

    def _plain(self, loss: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, str]:
        """One step of the optimizer, unless something is wrong: the loss, and what is."""
        value, trouble = self._evaluate(loss, batch)
        trouble = trouble or self._differentiate(value)
        if not trouble:
            self.optimizer.step()
        return value, trouble

    def _recorded(self, loss: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, str]:
        """The same as a graph, recorded by and by."""
        if self.recorder is None:
            self.recorder = Recorder(lambda batch: self._plain(loss, batch)[0].detach(), self.noise or ())
        return self.recorder(batch), ""

    def _evaluate(self, loss: Callable[[Any], Tensor], batch: Any) -> tuple[Tensor, str]:
        """The loss, and what the guard finds wrong with it; chains that meet an energy of −∞ are such a thing."""
        try:
            value = loss(batch)
        except FloatingPointError as error:
            if self.guard is None:
                raise
            return torch.tensor(math.nan), str(error)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise fail("loss", "a scalar tensor", got, "return for example value.mean()")
        return value, self.guard.trouble(value) if self.guard else ""

    def _differentiate(self, value: Tensor) -> str:
        """Leave the gradient, clipped, in the parameters, and say what is wrong with it."""
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        if self.guard is None and self.clip is None:
            return ""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, math.inf if self.clip is None else self.clip))
        return f"a gradient of norm {norm}" if self.guard and not math.isfinite(norm) else ""

    def _roll_back(self, trouble: str) -> None:
        """Go back to the guard's good state at half the learning rate, and say so."""
        if self.guard is None:
            return
        step, good = self.result.steps, self.guard.roll_back()
        if self.guard.rollbacks > self.guard.retries:
            raise DivergedError(
                f"loss: expected a finite, settled training, got {trouble} at step {step} after {self.guard.retries} "
                f"rollbacks; the state of step {good} is kept; lower the learning rate or the chains' step"
            )
        self.optimizer.state.clear()  # its moments belong to the steps that led astray
        self.scheduler.base_lrs = rates = [lr / 2 for lr in self.scheduler.base_lrs]
        self.result.log.append(f"step {step}: {trouble}; back to step {good}, peak learning rate {rates[0]:.3g}")
        if self.average:
            self.average.restart()

    def check(self, score: Callable[[], Tensor] | None) -> None:
        """Note the mean loss since the previous check; score the present state, and keep it where it is the best."""
        mean = torch.stack(self.recent).mean().item() if self.recent else 0.0
        if not math.isfinite(mean):
            self.keeper.restore()
            step = self.result.steps
            raise DivergedError(f"loss: expected a finite value, got {mean} by step {step}; lower the learning rate")
        values = {"loss": mean, "lr": self.optimizer.param_groups[0]["lr"]} if self.recent else {}
        self.result.losses += [mean] if self.recent else []
        self.recent.clear()
        if score is not None:
            values["score"] = self._scored(score)
        if values:
            self.report(self.result.steps, values)

    def _scored(self, score: Callable[[], Tensor]) -> float:
        """Mean score of the present state, which is kept where it is the best."""
        was_training = self.module.training
        self.module.eval()
        with torch.no_grad():
            value = score()
        self.module.train(was_training)
        self.result.scores.append(value)
        self.keeper.update(value)
        return float(value.double().mean())

    def end(self) -> None:
        """Leave the best or the averaged state in the module."""
        if self.ended:
            return
        if self.result.scores:
            self.keeper.restore()
            self.result.best = self.keeper.best
        if self.average:
            self.average.load()
        self.ended = True

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps to come depend on; of a fit that has ended, its outcome."""
        outcome = {"module": self.module.state_dict(), "result": vars(self.result), "ended": self.ended}
        if self.ended:
            return outcome
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**outcome, **parts, "recent": self.recent, "moved": self.moved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another run of the same fit was."""
        self.module.load_state_dict(state["module"])
        self.result, self.ended = FitResult(**state["result"]), state["ended"]
        if not self.ended:
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.recent, self.moved = state["recent"], state["moved"]

    def _parts(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("optimizer", "scheduler", "keeper", "average", "guard")}
        return {name: part for name, part in parts.items() if part is not None}
