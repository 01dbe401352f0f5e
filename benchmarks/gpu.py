"""Every public path on a GPU, pass or fail, and how fast it is there, beside torchebm and a compiled step.

Needs an NVIDIA GPU; without one it says so and stops. Each line has a time limit of its own; what the budget does not
reach is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentebm.adapters.from_module import WrappedModel
from latentebm.files import write_json
from latentebm.models.energies import EnergyNet
from latentebm.models.tilts import LatentTilt
from latentebm.sampling import MALA, SNIS, ULA, FusedMLP, run_chains

SIZES = ((64, 2), (1_000, 2), (10_000, 10), (100_000, 10), (1_000_000, 10))
STEPS = {64: 640, 1_000: 640, 10_000: 320, 100_000: 192}  # of a timed run; 96 beyond
PRECISIONS = ("fp32", "tf32", "bf16")
DEVICE = torch.device("cuda:0")


class Run:
    """What was found so far, written after every line."""

    def __init__(self, out: Path, budget: float) -> None:
        self.out, self.end, self.found = out, time.perf_counter() + budget, {}

    def line(self, part: str, name: str, work: Callable[[], Any], limit: float = 60.0) -> None:
        """Run one line within its limit and the budget, and note its value, or how it failed."""
        left = min(limit, self.end - time.perf_counter())
        start, said = time.perf_counter(), []
        try:
            if left < 1:
                raise TimeoutError("the budget is spent")
            with _alarm(left), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always", RuntimeWarning)
                value = work()
                torch.cuda.synchronize()
            value = "pass" if value is None else value
        except Exception as error:  # noqa: BLE001 - a line that fails must not keep the others from running
            value = f"FAIL {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        self.found.setdefault(part, {})[name] = value
        print(f"{part:10} {name:32} {value}  ({time.perf_counter() - start:.1f} s)", flush=True)
        for message in {str(w.message)[:300] for w in said if issubclass(w.category, RuntimeWarning)}:
            print(f"           warned: {message}", flush=True)
        write_json(self.out, self.found)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def perceptron(dim: int) -> nn.Sequential:
    """Energy d→256→128→1 with SiLU."""
    torch.manual_seed(0)
    layers = [nn.Linear(dim, 256), nn.SiLU(), nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 1), nn.Flatten(0)]
    return nn.Sequential(*layers).to(DEVICE)


def microseconds(call: Callable[[], Any], steps: int, repeats: int = 3) -> float:
    """Median time per step, of a call that takes `steps`, after a first one."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(times[1:]) / steps, 1)


def ours(n: int, dim: int, kernel: Any, **how: Any) -> float:
    """Microseconds a step of `run_chains`, all told."""
    x, g = torch.randn(n, dim, device=DEVICE), torch.Generator(DEVICE).manual_seed(0)
    potential, steps = FusedMLP(perceptron(dim)), STEPS.get(n, 96)
    return microseconds(lambda: run_chains(potential, x, kernel, steps, generator=g, **how), steps)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Torch's own products at a precision."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def torchebm(n: int, dim: int, precision: str) -> float:
    """Microseconds a step of torchebm's LangevinDynamics."""
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Energy(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.net = perceptron(dim)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).float()

    sampler = LangevinDynamics(Energy().to(DEVICE), step_size=0.01, device=DEVICE)
    x, steps = torch.randn(n, dim, device=DEVICE), 100 if n < 100_000 else 20
    with products(precision):
        return microseconds(lambda: sampler.sample(x=x, n_steps=steps), steps)


def graph(n: int, dim: int, precision: str) -> dict[str, float]:
    """Microseconds a step of one function compiled by torch.compile and replayed as a graph; seconds to get there."""
    energy, x = FusedMLP(perceptron(dim)), torch.randn(n, dim, device=DEVICE)
    if precision == "bf16":
        for layer in (energy.weights, energy.transposed, energy.biases):
            layer[:] = [t.bfloat16() for t in layer]

    def step(x: torch.Tensor) -> torch.Tensor:
        grad = energy.value_and_grad(x.to(energy.biases[0].dtype))[1]
        return x - 0.01 * grad + math.sqrt(0.02) * torch.randn_like(x)

    start = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    with torch.no_grad():
        compiled, recorded = torch.compile(step, dynamic=False), torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                compiled(x)
        torch.cuda.synchronize()
        with torch.cuda.graph(recorded):
            x.copy_(compiled(x))
    seconds = time.perf_counter() - start
    found = microseconds(lambda: [recorded.replay() for _ in range(20)], 20)
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"us": found, "compile_s": round(seconds, 1)}


def speed(run: Run) -> None:
    """Chains of all sizes."""
    start = time.perf_counter()
    run.line("compile_s", "ULA, then any number of chains", lambda: ours(1_000, 2, ULA(0.01)) and seconds(start))
    for n, dim in SIZES:
        for precision in PRECISIONS:
            how = {"precision": precision}
            run.line("ula", f"{n} {precision}", lambda n=n, dim=dim, how=how: ours(n, dim, ULA(0.01), **how))
            run.line("mala", f"{n} {precision}", lambda n=n, dim=dim, how=how: ours(n, dim, MALA(0.01), **how))
        run.line("recorded", f"{n} plain steps as a graph", lambda n=n, dim=dim: recorded(n, dim), 20)
    for n, dim in SIZES:
        for precision in PRECISIONS:
            run.line("torchebm", f"{n} {precision}", lambda n=n, dim=dim, p=precision: torchebm(n, dim, p), 20)


def recorded(n: int, dim: int) -> float:
    """Microseconds a step of any other potential with ``compile=True``, its recording included."""
    net, g = perceptron(dim), torch.Generator(DEVICE).manual_seed(0)
    x, steps = torch.randn(n, dim, device=DEVICE), STEPS.get(n, 96)
    potential = lambda x: net(x)  # noqa: E731 - a function that says nothing of its layers
    return microseconds(lambda: run_chains(potential, x, ULA(0.01), steps, generator=g, compile=True), steps)


def limits(run: Run) -> None:
    """The compiled step beside them."""
    for n, dim in SIZES[1:]:
        for precision in ("fp32", "bf16", "tf32"):
            run.line("graph", f"{n} {precision}", lambda n=n, dim=dim, p=precision: graph(n, dim, p), 30)


def seconds(start: float) -> float:
    """Since then."""
    return round(time.perf_counter() - start, 1)


def pool(run: Run) -> None:
    """SNIS base draws a second and its memory, in ten dimensions with five members."""
    rng = torch.Generator().manual_seed(0)
    energy = EnergyNet(10, members=5, limit=4.0, generator=rng).to(DEVICE)
    energy.weights[-1].data.normal_()
    tilt, g = LatentTilt(WrappedModel(nn.Identity(), 10), energy), torch.Generator(DEVICE).manual_seed(0)

    def drawn(size: int) -> dict[str, float]:
        torch.cuda.reset_peak_memory_stats()
        micro = microseconds(lambda: SNIS(pool=size).draw(tilt, 10_000, generator=g), size)
        rate = size / microseconds(lambda: SNIS(pool=size).draw(tilt, 10_000, generator=g), 1) * 1e6
        return {"per_s": float(f"{rate:.3g}"), "peak_mb": torch.cuda.max_memory_allocated() // 2**20, "us": micro}

    for size in (4_000_000, 40_000_000):
        run.line("snis", f"{size} base draws", lambda size=size: drawn(size), 20)


def jobs(run: Run) -> None:
    """Seconds of whole jobs, each with its stages."""
    from latentebm.settings.fields import Settings
    from latentebm.workflow.run import debias

    def job(**settings: Any) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            metrics = debias(Settings(device="cuda", out=f"{folder}/run", **settings)).metrics
            stages = {name: round(value, 1) for name, value in metrics["seconds"].items()}
            return {"wall": seconds(start), **stages, "tv": round(metrics["tilted"]["tv"], 4)}

    run.line("debias", "default, 2-D", lambda: job(), 60)
    run.line("debias", "10 per class", lambda: job(reference_per_class=10), 60)
    run.line("debias", "10-D", lambda: job(latent_dim=10), 60)
    run.line("debias", "data space", lambda: job(space="data"), 60)


def paths(run: Run) -> None:
    """Every public path, small: the estimator here, the rest as the tests of devices list them."""
    from latentebm import Debiaser, biased_split, load_images

    data, rng = load_images("mnist"), torch.Generator().manual_seed(0)
    biased, reference = biased_split(data.labels, range(5), [0.12, 0.33, 0.28, 0.20, 0.07], generator=rng)
    images = data.images[biased][:2_000], data.images[reference][:500]
    small: dict[str, Any] = {"epochs": 1, "tilt_steps": 20, "folds": 2, "pool": 5_000, "langevin_steps": 10}

    def fitted(**more: Any) -> None:
        draws = Debiaser(device="cuda", **{**small, **more}).fit(*images).sample(50)
        assert draws.x.is_cuda
        assert bool(draws.x.isfinite().all())

    for objective in ("likelihood", "jensen", "nce", "contrastive", "amortized", "score"):
        run.line("paths", f"latent, {objective}", lambda o=objective: fitted(objective=o), 30)
    for objective in ("likelihood", "contrastive", "amortized"):
        run.line("paths", f"data, {objective}", lambda o=objective: fitted(objective=o, space="data"), 30)
    for sampler in ("mala", "pmc", "auto"):
        run.line("paths", f"sampler {sampler}", lambda s=sampler: fitted(sampler=s), 30)
    run.line("paths", "data, sampler mala", lambda: fitted(sampler="mala", space="data"), 30)
    images = images[0], data.images[reference][:1_000]
    run.line("paths", "shares of a learned prior", lambda: fitted(latent_dim=5), 30)
    images = images[0], images[1][:40]
    run.line("paths", "few references", fitted, 30)
    both = {"learn_from": "both", "latent_dim": 5, "sharpen": 0.5}
    run.line("paths", "learning from both, with a critic", lambda: fitted(**both), 30)
    try:
        from tests import test_devices as listed
    except ImportError as error:
        run.found["paths"]["the tests' list"] = f"left out: {error}"
        return
    listed.DEVICE = DEVICE
    for kind, make in {"cpu": torch.Generator, "cuda": lambda: torch.Generator(DEVICE)}.items():
        g = lambda make=make: make().manual_seed(0)  # noqa: E731
        for sampler in listed.SAMPLERS:
            name = type(getattr(sampler, "kernel", sampler)).__name__
            run.line("paths", f"{name}, {kind} generator", lambda s=sampler, g=g: listed.test_samplers(s, g()), 20)
        for test in ("tilts_of_any_model", "fits_follow_their_model", "missing_data", "diagnostics_and_baselines"):
            work = getattr(listed, f"test_{test}")
            run.line("paths", f"{test}, {kind} generator", lambda work=work, g=g: work(g()), 30)


PARTS = {"speed": speed, "jobs": jobs, "snis": pool, "paths": paths, "limits": limits}


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=280.0, metavar="SECONDS", help="of all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: torch finds no NVIDIA GPU on this machine")
        return
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the tests' list of paths is
    run = Run(options.out, options.budget)
    run.found["machine"] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "python": sys.version[:6]}
    print(json.dumps(run.found["machine"]))
    for part in options.parts:
        PARTS[part](run)


if __name__ == "__main__":
    main()
