"""What fits report as they go: one callback, ``log(step, values)``, and a file of lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from latentebm.checks import fail
from latentebm.disk.folders import Workplace
from latentebm.files import finite

__all__ = ["Log", "LogFile", "event_files", "log_file", "logged", "reporter"]

Log = Callable[[int, dict[str, float]], None]


class _Block:
    """A callback, and how many fits of each description it has seen."""

    def __init__(self, log: Log) -> None:
        self.log, self.seen = log, Counter[str]()

    def name(self, description: str) -> str:
        """The name of the next fit: a second one of a description is numbered."""
        self.seen[description] += 1
        times = self.seen[description]
        return description if times == 1 else f"{description} {times}"


_BLOCKS: ContextVar[tuple[_Block, ...]] = ContextVar("logs", default=())


@contextmanager
def logged(log: Log | None) -> Iterator[None]:
    """Let every fit inside the block call ``log(step, values)`` at each of its checks; None changes nothing.

    The values are numbers by name, such as ``energy/loss``, ``energy/score`` (held out, lower is better) and
    ``energy/lr``; the steps are those of the fit. A second fit of one description is ``energy 2``.

    Example:
        >>> seen = []
        >>> with logged(lambda step, values: seen.append((step, values))):
        ...     reporter("energy")(25, {"loss": 0.5}), reporter("energy")(25, {"loss": 0.4})
        (None, None)
        >>> seen
        [(25, {'energy/loss': 0.5}), (25, {'energy 2/loss': 0.4})]
    """
    token = None if log is None else _BLOCKS.set((*_BLOCKS.get(), _Block(log)))
    try:
        yield
    finally:
        if token is not None:
            _BLOCKS.reset(token)


def reporter(description: str, log: Log | None = None) -> Callable[[int, Mapping[str, float]], None]:
    """What a fit calls at its checks: it hands the values, under the fit's name, to `log` and to the blocks around."""
    blocks = [*_BLOCKS.get(), *([] if log is None else [_Block(log)])]
    named = [(block.log, block.name(description)) for block in blocks]

    def report(step: int, values: Mapping[str, float]) -> None:
        for each, name in named:
            each(step, {f"{name}/{key}": float(value) for key, value in values.items()})

    return report


class LogFile:
    """A callback that appends each report to a file as a line of JSON at once; a run that goes on writes none twice.

    Arguments:
        path: of the file; lines of a run that was killed stay, but for a half one at the end.
        also: callbacks that get what is new.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> LogFile(path)(25, {"VAE/loss": 0.5})
        >>> resumed = LogFile(path)
        >>> resumed(25, {"VAE/loss": 0.5}), resumed(50, {"VAE/loss": 0.4})
        (None, None)
        >>> path.read_text().splitlines()
        ['{"step": 25, "VAE/loss": 0.5}', '{"step": 50, "VAE/loss": 0.4}']
    """

    def __init__(self, path: Path, also: Sequence[Log] = ()) -> None:
        self.path, self.also = path, also
        self.last: dict[str, int] = {}
        self.stages: set[str] = set()
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            self._note(json.loads(line))

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Write what is new of a report."""
        fresh = {key: value for key, value in values.items() if step > self.last.get(key, -1)}
        if fresh:
            self._write({"step": step, **fresh})
            for log in self.also:
                log(step, fresh)

    def stage(self, line: dict[str, Any]) -> None:
        """Write what a stage of a run has to say, once."""
        if line["stage"] not in self.stages:
            self._write(line)

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(line)) + "\n")
        self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        if "stage" in line:
            self.stages.add(line["stage"])
        self.last |= {key: line["step"] for key in line if key not in ("step", "stage")} if "step" in line else {}


def event_files(folder: Path) -> Log:
    """A callback that writes event files for TensorBoard into a folder.

    Raises:
        ValueError: the package tensorboard is missing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> event_files(folder)(25, {"VAE/loss": 0.5})
        >>> len(list(folder.glob("events.out.tfevents.*")))
        1
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        fix = 'pip install "latentebm[tensorboard]"'
        raise fail("tensorboard", "the package tensorboard", "none", fix) from None
    writer = SummaryWriter(str(folder))

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def log_file(place: Workplace, *, tensorboard: bool = False) -> LogFile:
    """The log of a job, with TensorBoard's files beside it where they are asked for.

    Raises:
        ValueError: the package tensorboard is missing.
    """
    return LogFile(place.log, [event_files(place.events)] if tensorboard else [])
