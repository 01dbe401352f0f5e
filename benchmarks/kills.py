"""Kill a small run at random moments and let it go on: every output must be that of the run that was never killed.

    python benchmarks/kills.py --moments 50
    python benchmarks/kills.py --kinds systematic residual two-stage tilt spooled --moments 20

Every second run replaces an earlier one. After each kill what stands in the folder must be nothing, the earlier run or
the new one, whole; after the run has gone on, its weights, draws, figures, config, and metrics without their seconds
must be the same to the last bit. Other kinds are long draws within `checkpoints`, and runs of `latentebm tilt` whose
decoder is slow, with and without a spool; SIGTERM and SIGINT take turns with SIGKILL there. Prints the count of each,
and how many of the other kinds went on from something that the killed process had left.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentebm import SNIS, Debiaser, LatentTilt, TwoStage, WrappedModel
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.folders import unfinished
from latentebm.disk.statefile import digest
from latentebm.files import sha256, write_json
from latentebm.settings.fields import Settings
from latentebm.workflow import tilt_run
from latentebm.workflow.run import debias, resume
from latentebm.workflow.tilt_settings import TiltSettings

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


class Pictures(torch.nn.Module):
    """Pictures of 8 × 8 from codes of four numbers, which cost about a tenth of a millisecond each."""

    latent_dim, data_shape = 4, (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.register_buffer("inwards", torch.randn(4, 512, generator=rng))
        self.register_buffer("on", torch.randn(512, 512, generator=rng) / 16)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 1, 8, 8)."""
        x = torch.tanh(z @ self.inwards)
        for _ in range(8):
            x = torch.tanh(x @ self.on)
        return (x[:, :64].reshape(-1, 1, 8, 8) + 1) / 2


def build() -> Pictures:
    """The model of the tilts."""
    return Pictures()


def bright(x: torch.Tensor) -> list[str]:
    """Whether pictures are bright."""
    return ["yes" if each > 0.5 else "no" for each in x.mean((1, 2, 3))]


def draw(kind: str, folder: Path) -> None:
    """Draw from a tilt of eight dimensions by a sampler, and write down what came."""
    sampler = TwoStage(pilot=4000, decodes=40_000, pool=400_000) if kind == "two-stage" else SNIS(
        pool=2_000_000, chunk=20_000, resampling=kind)  # fmt: skip
    energy = torch.nn.Sequential(torch.nn.Linear(8, 256), torch.nn.SiLU(), torch.nn.Linear(256, 1), torch.nn.Flatten(0))
    for i, parameter in enumerate(energy.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(i))
    tilt = LatentTilt(WrappedModel(torch.nn.Identity(), 8), energy)
    with checkpoints(folder / "kept", every=EVERY, keep=True):
        draws = sampler.draw(tilt, 3000, generator=torch.Generator().manual_seed(0))
    write_json(
        folder / "run" / "drawn.json", digest([draws.x, draws.latent, draws.log_weight, draws.diagnostics["ess"]])
    )


def tilted(kind: str, folder: Path) -> None:
    """Tilt the pictures' model to as many bright ones as dark ones."""
    tilt_run.checkpoints = partial(checkpoints, every=EVERY)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # the report says where it is
    chosen = {"attributes": ("kills:bright",), "targets": ("yes:.8,no:.2",), "spool": kind == "spooled"}
    settings = TiltSettings(model="kills:build", pool=20_000, samples=2000, out="run", **chosen)
    tilt_run.run_tilt(settings)


def written(folder: Path) -> dict[str, Any]:
    """Every file of a draw or a tilt but for times."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "log.jsonl"]
    return {str(p.relative_to(folder)): sha256(p) for p in files}


def others(kinds: list[str], moments: int, rng: random.Random, root: Path) -> Counter[str]:
    """How many killed draws and tilts ended as those that were not killed."""
    found = Counter[str]()
    works = {kind: partial(tilted if kind in ("tilt", "spooled") else draw, kind) for kind in kinds}
    whole: dict[str, tuple[float, dict[str, Any]]] = {}
    for kind, work in works.items():
        start = time.perf_counter()
        os.waitpid(child(lambda work=work, kind=kind: work(root / "whole" / kind)), 0)
        whole[kind] = time.perf_counter() - start, written(root / "whole" / kind / "run")
    for i in range(moments):
        kind, folder = kinds[i % len(kinds)], root / str(i)
        pid = child(lambda: works[kind](folder))  # noqa: B023 - forked within the turn
        time.sleep(rng.uniform(0, whole[kind][0]))
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[i // len(kinds) % 3]
        os.kill(pid, number)
        os.waitpid(pid, 0)
        done = (folder / "run").is_dir()
        left = [*folder.rglob("*.safetensors"), *folder.rglob("*.npy")]
        again = 0 if done else os.waitpid(child(lambda: works[kind](folder)), 0)[1]  # noqa: B023
        same = not again and written(folder / "run") == whole[kind][1]
        state = "done" if done else "went on" if left else "began again"
        found[f"{'equal' if same else 'differs'} ({kind}, {number.name}, {state})"] += 1
        print(i, dict(found), flush=True)
    return found


def main() -> None:
    """Print how many of the killed runs ended as the one that was not killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=[])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    root, rng = Path(tempfile.mkdtemp()), random.Random(asked.seed)
    if asked.kinds:
        print(json.dumps(others(asked.kinds, asked.moments, rng, root), indent=1))
        return
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
