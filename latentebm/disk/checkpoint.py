"""Checkpoints of fits and draws: code that is stopped or killed goes on where it was, to the same result."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from latentebm.checks import check_number, fail
from latentebm.disk.statefile import digest, read_state, write_state
from latentebm.processes import grouped
from latentebm.registry import stored

__all__ = ["Checkpoint", "Resumable", "checkpoints", "fit_checkpoint"]

STOPS = {signal.SIGTERM: SystemExit(128 + signal.SIGTERM), signal.SIGINT: KeyboardInterrupt()}
SAMPLED = 1 << 20  # numbers of each tensor that tell one fit's data from another's


class _Block:
    """The fits and draws of one block of code, in the order in which they run."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every = folder, every
        self.paths: list[Path] = []
        self.busy = self.waits = False  # whether a fit is under way, and whether signals wait for its step
        self.caught: int | None = None

    def path(self, description: str) -> Path:
        """The file of the next fit."""
        name = "".join(c if c.isalnum() else "-" for c in description)
        self.paths.append(self.folder / f"{len(self.paths) + 1:03d}-{name}.safetensors")
        return self.paths[-1]

    def catch(self, number: int, frame: FrameType | None) -> None:
        """Note a signal to stop, which a fit follows once its step is done; elsewhere, or the second time, at once."""
        if not self.waits or self.caught is not None:
            raise STOPS[signal.Signals(number)]
        self.caught = number


_BLOCK: ContextVar[_Block | None] = ContextVar("checkpoints", default=None)


@contextmanager
def checkpoints(folder: Path | str, *, every: float = 60.0, keep: bool = False) -> Iterator[None]:
    """Let every fit inside the block write checkpoints into a folder, and go on from those it finds there.

    A block that was killed, run again, skips the fits that were done and goes on with the one that was not; its result
    is the same to the last bit on the same machine. So do long draws: SNIS, two-stage, rejection, i-SIR, Langevin's
    chains, tempered particles and ladders, and HMC and NUTS chain by chain; and what is `walked`, such as decoding and
    imputing. SIGTERM and Ctrl-C end a fit after its step, with a checkpoint.
    Once the block has succeeded its checkpoints are removed.

    Arguments:
        folder: of the checkpoints, made where there is none.
        every: seconds between two checkpoints of a fit.
        keep: whether the checkpoints of a block that has succeeded stay.

    Raises:
        ValueError: a checkpoint is damaged, or that of another fit: other data, settings, seed or order.

    Example:
        >>> import tempfile
        >>> from latentebm.data.batches import Minibatches
        >>> from latentebm.training.fit import fit
        >>> def work(stop=1000):
        ...     net, g = torch.nn.Linear(1, 1), torch.Generator().manual_seed(0)
        ...     torch.nn.init.zeros_(net.weight), torch.nn.init.zeros_(net.bias)
        ...     batches = Minibatches(torch.arange(6.0).view(6, 1), batch_size=2, epochs=5, generator=g)
        ...     def loss(batch):
        ...         work.steps += 1
        ...         return (net(batch[0]) - 3).square().mean() * (1 / (work.steps != stop))
        ...     fit(net, loss, batches, state=[g])
        ...     return net.weight.item()
        >>> work.steps, folder = 0, tempfile.mkdtemp()
        >>> with checkpoints(folder, every=0):
        ...     work(stop=9)
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
        >>> with checkpoints(folder):
        ...     resumed = work()
        >>> work.steps, resumed == work()
        (16, True)
    """
    block = _Block(Path(folder), check_number("every", every, low=0))
    token, before = _BLOCK.set(block), {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, block.catch) for number in STOPS}
    try:
        yield
    finally:
        _BLOCK.reset(token)
        for number, handler in before.items():
            signal.signal(number, handler)
    if keep:
        return
    for path in block.paths:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else
        block.folder.rmdir()


@contextmanager
def fit_checkpoint(
    description: str,
    parts: Sequence[Any],
    settings: Any,
    data: Callable[[], Sequence[Tensor]],
    *,
    waits: bool = True,
) -> Iterator[Checkpoint]:
    """The checkpoint of a fit whose state is that of its parts; outside a block of `checkpoints` it does nothing.

    Arguments:
        description: of the fit.
        parts: what a fit changes: generators, tensors, and what has `state_dict` and `load_state_dict`.
        settings: of the fit, a dataclass, or None; with `data`, and the parts as they begin, they tell one fit from
            another.
        data: gives what is fitted to, or is drawn from.
        waits: whether signals to stop wait for the end of a step.
    """
    block = _BLOCK.get()
    if block is None or block.busy or grouped():  # several processes would not all go on from one place
        yield Checkpoint(None, Path(), parts, "")
        return
    named = [] if settings is None else dataclasses.fields(settings)
    fields = {field.name: stored(getattr(settings, field.name)) for field in named}
    begun = digest([description, fields, [_sample(x) for x in data()], [_state(part) for part in parts]])
    block.busy, block.waits = True, waits
    try:
        yield Checkpoint(block, block.path(description), parts, begun)
    finally:
        block.busy = block.waits = False


class Resumable:
    """What is known so far of something long, in attributes that a checkpoint can hold: tensors, numbers, lists."""

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set it to what was known."""
        vars(self).update(state)


class Checkpoint:
    """One fit's file, which holds its parts' state."""

    def __init__(self, block: _Block | None, path: Path, parts: Sequence[Any], begun: str) -> None:
        self.block, self.path, self.parts, self.begun = block, path, parts, begun
        self.last = time.monotonic()

    def restore(self) -> bool:
        """Set the parts to where an earlier fit left them, and say whether there was one."""
        if self.block is None or not self.path.exists():
            return False
        saved = read_state(self.path)
        if saved["begun"] != self.begun:
            got = f"that of another (data, settings or seed have changed), {self.path}"
            raise fail("checkpoint", "that of the same fit", got, "restore what has changed, or delete the checkpoints")
        for part, state in zip(self.parts, saved["parts"], strict=True):
            _restore(part, state)
        torch.set_rng_state(saved["random"][0])
        for device, state in enumerate(saved["random"][1:]):
            torch.cuda.set_rng_state(state, device)
        return True

    def step(self) -> None:
        """Save where it is time to, or where the process is asked to stop."""
        if self.block is None:
            return
        stopping = self.block.caught is not None
        if stopping or time.monotonic() - self.last >= self.block.every:
            self.save()
        if stopping:
            raise STOPS[signal.Signals(self.block.caught)]  # type: ignore[arg-type]

    def save(self) -> None:
        """Write the state of the parts, and of torch's own random streams."""
        if self.block is None:
            return
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
        parts = [_state(part) for part in self.parts]
        write_state(self.path, {"begun": self.begun, "parts": parts, "random": random})
        self.last = time.monotonic()


def _state(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part if isinstance(part, Tensor) else part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, Tensor):
        with torch.no_grad():
            part.copy_(state)
    else:
        part.load_state_dict(state)


def _sample(x: Tensor) -> Tensor:
    """Evenly spaced numbers of a tensor."""
    return x.detach().flatten()[:: max(1, x.numel() // SAMPLED)]
