"""Two processes do what one does, and the parts of a pool merge into the whole; one that dies ends both."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from itertools import zip_longest

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.stats import ks_2samp, kstest

from latentebm import MALA, SNIS, Debiaser, Langevin, expected_shares, processes, tilt_attributes, tilt_generator
from latentebm.adapters.from_module import WrappedModel
from latentebm.disk.folders import run_folder
from latentebm.models.features import Attribute
from latentebm.models.tilts import LatentTilt
from latentebm.rng import child
from latentebm.sampling.importance.pools import owners, pool_part
from latentebm.sampling.importance.weights import WeightSums
from latentebm.sampling.split import draw_split
from latentebm.settings.fields import Settings
from latentebm.workflow.run import debias

TILT = LatentTilt(WrappedModel(torch.nn.Identity(), 1), torch.nn.Flatten(0))  # N(0, 1) tilted to N(−1, 1), log Z = 1/2
ALPHA = 1e-6


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def parts_of(pool, world, n, seed=0):
    """What every process of a world would draw of a pool."""
    parts = []
    for r in range(world):
        rows = processes.share(pool, r, world)
        own = processes.own_stream(gen(seed), r)
        parts.append(pool_part(TILT, n, rows, pool=pool, chunk=4_096, generator=own))
    return parts


def whole(pool, world, seed=0):
    """The sums of the same weights, added as one pool."""
    sums = WeightSums(pool)
    for r in range(world):
        own = processes.own_stream(gen(seed), r)
        child(own)  # what resamples has a stream of its own
        u = TILT.sample_base(len(processes.share(pool, r, world)), generator=own)
        sums.add(-TILT.energy(u))
    return sums


def pairwise(sums):
    """Merged two by two, as a tree of any width is."""
    while len(sums) > 1:
        sums = [a if b is None else a.merge(b) for a, b in zip_longest(sums[::2], sums[1::2])]
    return sums[0]


@pytest.mark.parametrize("world", [2, 3, 100])
def test_parts_of_a_pool_merge_into_the_whole(world):
    """Sums to rounding and the tail exactly; draws of the tilt, each from the part that its weight says."""
    pool, n = 20_001, 300
    parts, one = parts_of(pool, world, n), whole(pool, world)
    log_sums = [p.sums.log_sum for p in parts]
    sums = pairwise([p.sums for p in parts])
    assert sums.count == pool
    assert sums.report() == pytest.approx(one.report(), rel=1e-10, abs=1e-10)
    owner = owners(log_sums, n, gen(1))
    drawn = torch.stack([parts[int(r)].latent[i, 0] for i, r in enumerate(owner)])
    assert kstest(drawn.numpy(), "norm", args=(-1, 1)).pvalue > ALPHA


def test_parts_are_chosen_by_their_weight():
    """A part of a thousandth of the weight gives a thousandth of the draws, however many rows it has."""
    share = (owners([0.0, math.log(1e-3)], 200_000, gen()) == 1).double().mean()
    assert abs(float(share) - 1e-3 / 1.001) < 5 * math.sqrt(1e-3 / 200_000)


def images(n=160):
    kinds = torch.arange(n) % 2
    pixels = torch.zeros(n, 8, 8)
    pixels[kinds == 0, :, 2:4] = 1
    pixels[kinds == 1, 5:7] = 1
    return (pixels * 0.9 + 0.1 * torch.rand(n, 8, 8, generator=gen())).numpy()


def settings():
    return {"width": 16, "epochs": 3, "folds": 3, "tilt_steps": 10, "pool": 2_000, "precision": "fp32", "clusters": 0}


def attribute_tilt():
    """θ of a tilt to half of what is above 1, and the shares that it expects on other draws."""
    above = Attribute(lambda x: x[:, 0] > 1, {False: 0.5, True: 0.5}, "above")
    tilt = tilt_attributes(TILT.model, above, pool=3_001, generator=gen())
    shares = expected_shares(tilt, above, pool=3_001, generator=gen(1))["above"]
    return [*tilt.net.energy.theta.tolist(), *shares.values()]


def reference_tilt():
    """Energies of a tilt to draws of N(1, 1)."""
    reference = 1 + torch.randn(60, 1, generator=gen(2))
    tilt = tilt_generator(TILT.model, reference, features=lambda x: x, pool=2_001, generator=gen())
    return tilt.energy(torch.linspace(-2, 2, 5)[:, None]).tolist()


def judged_run(folder):
    """What a run on labelled data says of its draws: rank 0 judges them while the other process waits."""
    path = folder / "labelled.npz"
    processes.on_main(lambda: np.savez(path, images=(255 * images(1_200)).astype("uint8"), labels=np.arange(1_200) % 2))
    sizes = {"latent_dim": 4, "epochs": 60, "width": 32, "folds": 2, "tilt_steps": 20, "pool": 5_000, "samples": 200}
    made = debias(Settings(data=str(path), proportions="0.6,0.4", reference_per_class=20, **sizes, out=folder / "run"))
    return made.metrics


def work(rank, folder):
    """One of two processes: what it found, into a file of its own."""
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {"share": [processes.share(5).start, processes.share(5).stop]}
    snis = draw_split(SNIS(pool=20_001), TILT, 4_001, generator=gen())
    found["snis"] = {**snis.diagnostics, "latent": snis.latent[:, 0].tolist()}
    chains = draw_split(Langevin(kernel=MALA(0.5), n_steps=40), TILT, 1_001, generator=gen())
    found["chains"] = {**chains.diagnostics, "latent": chains.latent[:, 0].tolist(), "trace": list(chains.trace.shape)}
    model = Debiaser(**settings()).fit(images(), images()[:30])
    weights = [p.detach().flatten() for module in (model.vae_, model.energy_) for p in module.parameters()]
    found["model"] = {"weights": torch.cat(weights).sum().item(), "loss": model.vae_log_.losses[-1]}
    found["model"] |= {"gain": model.heldout_gain_, "drawn": model.sample(7).x.sum().item()}
    found["attribute"] = attribute_tilt()
    found["reference"] = reference_tilt()
    found["judged"] = judged_run(folder)
    for name, wrong in (("both", lambda: 1 / 0), ("one", lambda: [][rank] if rank else 0)):
        try:
            processes.together(wrong)
        except (ArithmeticError, LookupError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file, default=str)
    if rank == 1:
        os._exit(3)  # as the kernel would end it for its memory
    try:
        with run_folder(folder / "cut", overwrite=False, job=None):
            processes.together(lambda: None)
    except processes.LostRankError as error:
        (folder / "lost.txt").write_text(str(error))
    os._exit(0)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder, context = tmp_path_factory.mktemp("two"), multiprocessing.get_context("spawn")
    running = [context.Process(target=work, args=(rank, folder)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(500)
    assert [process.exitcode for process in running] == [0, 3]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_agree_in_everything(two):
    _, (first, second) = two
    assert (first["share"], second["share"]) == ([0, 3], [3, 5])
    for name in ("snis", "chains", "model", "attribute", "reference", "judged"):
        assert first[name] == second[name]


def test_a_pool_of_two_processes_is_that_of_one(two):
    found, one = two[1][0]["snis"], whole(20_001, 2)
    for name in ("ess", "pareto_k", "log_z"):
        assert found[name] == pytest.approx(getattr(one, name), abs=1e-10)
    alone = SNIS(pool=20_001).draw(TILT, 4_001, generator=gen(7))
    assert ks_2samp(found["latent"], alone.latent[:, 0].numpy()).pvalue > ALPHA
    assert found["duplicates"] == pytest.approx(alone.diagnostics["duplicates"], abs=0.02)


def test_chains_of_two_processes_have_the_law_of_one(two):
    found = two[1][0]["chains"]
    assert kstest(found["latent"], "norm", args=(-1, 1)).pvalue > ALPHA
    assert len(set(found["latent"])) == 1_001
    assert found["trace"] == [40, 64, 1]


def test_model_and_tilt_of_two_processes_are_within_noise(two):
    found = two[1][0]["model"]
    alone = [Debiaser(seed=seed, **settings()).fit(images(), images()[:30]) for seed in range(3)]
    for name, values in (
        ("loss", [m.vae_log_.losses[-1] for m in alone]),
        ("gain", [m.heldout_gain_ for m in alone]),
    ):
        spread = max(values) - min(values)
        assert min(values) - 3 * spread < found[name] < max(values) + 3 * spread


def test_a_tilt_of_two_processes_is_that_of_one(two):
    """They decode parts of one pool: its features are the same, so is what is fitted to them."""
    found = two[1][0]
    assert found["attribute"] == pytest.approx(attribute_tilt(), rel=1e-5)
    assert found["reference"] == pytest.approx(reference_tilt(), rel=1e-3, abs=1e-4)


def test_a_labelled_run_of_two_processes_is_judged_and_written(two):
    folder, (found, _) = two
    metrics = found["judged"]
    assert metrics["tilted"]["tv"] < 0.2
    assert metrics["tilted"]["frechet"] > 0
    assert (folder / "run" / "report.html").exists()


def test_an_error_of_one_is_raised_in_both(two):
    _, (first, second) = two
    assert first["both"] == second["both"] == "ZeroDivisionError: division by zero"
    assert second["one"].startswith("IndexError")
    assert first["one"] == "RuntimeError: IndexError: list index out of range (rank 1)"


def test_a_process_that_dies_ends_the_other_with_one_message_and_no_folder(two):
    folder, _ = two
    assert "lost another" in (folder / "lost.txt").read_text()
    assert not (folder / "cut").exists()
    assert not list(folder.glob(".cut*"))
