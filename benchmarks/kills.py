"""Kill a small run at random moments and let it go on: every output must be that of the run that was never killed.

    python benchmarks/kills.py --moments 50

Every second run replaces an earlier one. After each kill what stands in the folder must be nothing, the earlier run or
the new one, whole; after the run has gone on, its weights, draws, figures, config, and metrics without their seconds
must be the same to the last bit. Prints the count of each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentebm import Debiaser
from latentebm.disk.folders import unfinished
from latentebm.files import sha256
from latentebm.settings.fields import Settings
from latentebm.workflow.run import debias, resume

TINY = {
    "width": 32, "epochs": 250, "folds": 2, "tilt_steps": 60, "pool": 5_000, "samples": 300, "precision": "fp32",
    "proportions": ".5,.3,.2", "device": "cpu",
}  # fmt: skip
EVERY = 0.1  # seconds between checkpoints: one or more falls into each fit


def data(path: Path) -> str:
    """Bright left halves, upper halves and centres, with labels."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(900) % 3)
    images = rng.integers(0, 60, (900, 8, 8))
    images[labels == 0, :, :4] += 180
    images[labels == 1, :4, :] += 180
    images[labels == 2, 2:6, 2:6] += 180
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return str(path)


def outputs(folder: Path) -> dict[str, Any]:
    """Everything a run wrote that has no times in it."""
    found: dict[str, Any] = {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*.png"))}
    found |= {name: sha256(folder / name) for name in ("vae.safetensors", "energy.safetensors", "samples.npz")}
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    found["metrics"] = {name: value for name, value in metrics.items() if name != "seconds"}
    found["config"] = {name: config[name] for name in ("debiaser", "models", "learned")}
    found["log"] = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    return found


def child(work: Callable[[], object]) -> int:
    """A process of its own that does the work."""
    pid = os.fork()
    if pid == 0:
        torch.manual_seed(time.time_ns() % 2**31)  # the global stream must not matter
        status = 1
        try:
            work()
            status = 0
        except Exception:  # noqa: BLE001 - shown, and the status tells
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def trial(settings: Settings, earlier: Settings | None, at: float, known: list[dict[str, Any]]) -> str:
    """Kill a run after `at` seconds, look at what is there, let it go on, and compare."""
    out = Path(settings.out)
    if earlier is not None:
        os.waitpid(child(lambda: debias(earlier)), 0)
    pid = child(lambda: debias(settings, every=EVERY))
    time.sleep(at)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        Debiaser.load(out)
    except FileNotFoundError:
        if earlier is not None:
            return "the earlier run is lost"
    else:
        if outputs(out) not in known:
            return "a mixture loads"
    begun = out.is_dir() and outputs(out) == known[0]  # it was done when the signal came
    if not begun:
        # Killed before the first checkpoint there is nothing to go on from: the command is run again.
        kept = unfinished(out) is not None
        pid = child((lambda: resume(out, every=EVERY)) if kept else (lambda: debias(settings, every=EVERY)))
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            return "does not go on"
    left = [path.name for path in out.parent.iterdir() if path != out]
    return "equal" if outputs(out) == known[0] and not left else f"differs {left}"


def main() -> None:
    """Print how many of the killed runs ended as the one that was not killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    root, rng = Path(tempfile.mkdtemp()), random.Random(asked.seed)
    source = data(root / "bars.npz")
    whole = Settings(**TINY, data=source, out=str(root / "whole" / "run"))
    other = Settings(**TINY, data=source, seed=1, out=str(root / "other" / "run"))
    start = time.perf_counter()
    os.waitpid(child(lambda: debias(whole)), 0)
    seconds = time.perf_counter() - start
    os.waitpid(child(lambda: debias(other)), 0)
    known, found = [outputs(Path(s.out)) for s in (whole, other)], Counter[str]()
    for i in range(asked.moments):
        own = {**TINY, "data": source, "out": str(root / str(i) / "run")}
        earlier = Settings(**own, seed=1) if i % 2 else None
        outcome = trial(Settings(**own, overwrite=bool(i % 2)), earlier, rng.uniform(0, 1.1 * seconds), known)
        found[outcome] += 1
        print(i, outcome, dict(found), flush=True)
    print(f"a run takes {seconds:.1f} s; of {asked.moments} kills: {dict(found)}")


if __name__ == "__main__":
    main()
