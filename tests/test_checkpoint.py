"""StoppedError fits go on to the same result, bit by bit; checkpoints of other fits and damaged ones are refused."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn

from latentebm.data.images import Images
from latentebm.disk.checkpoint import checkpoints
from latentebm.disk.statefile import digest, read_state
from latentebm.ebm.learned_sampler import AmortizedRecipe, fit_amortized
from latentebm.ebm.maximum_likelihood import MCMCRecipe, fit_ebm
from latentebm.ebm.score import ScoreRecipe, fit_score
from latentebm.evaluation.judges import fit_classifier
from latentebm.missing.fit_miwae import MIWAERecipe, fit_miwae
from latentebm.missing.miwae import MIWAE
from latentebm.models.energies import EnergyNet
from latentebm.models.sampler_net import SamplerNet
from latentebm.models.vae import VAE
from latentebm.progress import silent
from latentebm.tilting.fit_tilt import TiltRecipe, fit_energy
from latentebm.tilting.sides import Codes
from latentebm.training.fit import fit
from latentebm.training.fit_vae import fit_vae
from latentebm.training.sharpen import sharpen

SHAPE = (1, 8, 8)
X = torch.randn(96, 2, generator=torch.Generator().manual_seed(7))
IMAGES = (255 * torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(8))).to(torch.uint8)


def vae(g, track):
    model = VAE(SHAPE, 2, width=8)
    fit_vae(
        model, IMAGES[:48], epochs=10, batch_size=12, held_out=IMAGES[48:], precision="fp32", generator=g, track=track
    )
    return model


def sharper(g, track):
    model = VAE(SHAPE, 2, width=8)
    sharpen(model, IMAGES[:48], epochs=8, batch_size=12, generator=g, track=track)
    return model


def miwae(g, track):
    model = MIWAE(["gaussian"] * 2, latent_dim=1, width=8)
    fit_miwae(model, X, torch.ones_like(X), MIWAERecipe(steps=30, k=2, batch_size=16), generator=g, track=track)
    return model


def tilt(objective):
    def work(g, track):
        energy = EnergyNet(2, members=2, hidden=(8,), generator=g)
        recipe = TiltRecipe(objective=objective, steps=30, every=4, batch=8, base_batch=8, chains=8, sampler_draws=16)
        fit_energy(energy, Codes.split(X, torch.full_like(X, 0.5), 2, g), recipe, generator=g, track=track)
        return energy

    return work


def ebm(g, track):
    energy = EnergyNet(2, hidden=(8,), generator=g)
    recipe = MCMCRecipe(epochs=5, batch_size=16, n_steps=2, buffer_size=32, restart=0.2, max_gap=0.3)
    fit_ebm(energy, X, recipe, generator=g, track=track)
    return energy


def score(g, track):
    energy = EnergyNet(2, hidden=(8,), generator=g)
    fit_score(energy, X, ScoreRecipe(sigma=0.1, steps=30, batch=16), generator=g, track=track)
    return energy


def amortized(g, track):
    energy, source = EnergyNet(2, hidden=(8,), generator=g), SamplerNet(2, 2, hidden=(8,), generator=g)
    fit_amortized(energy, source, X, AmortizedRecipe(steps=30, batch=16), generator=g, track=track)
    return nn.ModuleList([energy, source])


def judge(g, track):
    data = Images(IMAGES, torch.arange(64) % 2, ("a", "b"))
    return fit_classifier(data, epochs=8, batch_size=16, generator=g, device=torch.device("cpu"), track=track)


FITS = {
    "vae": vae, "sharper": sharper, "miwae": miwae, "ebm": ebm, "score": score, "amortized": amortized, "judge": judge,
    **{name: tilt(name) for name in ("likelihood", "contrastive", "amortized")},
}  # fmt: skip


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def after(steps):
    def track(items, what):
        for i, item in enumerate(items):
            if i == steps:
                raise StoppedError
            yield item

    return track


def outcome(work, track=silent):
    g = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    return digest([work(g, track).state_dict(), g.get_state(), torch.get_rng_state()])


@pytest.mark.parametrize("work", FITS.values(), ids=FITS.keys())
def test_a_fit_stopped_twice_ends_as_one_that_was_not(work, tmp_path):
    whole = outcome(work)
    for steps in (13, 9):  # of 30: in the middle of an epoch, and between two checks
        with pytest.raises(StoppedError), checkpoints(tmp_path, every=0):
            outcome(work, after(steps))
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
    with checkpoints(tmp_path):
        assert outcome(work) == whole
    assert not tmp_path.exists()


def least_squares(g, track, data=X, lr=0.1):
    from latentebm.data.batches import Minibatches
    from latentebm.training.optimisation import Optimisation

    net = nn.Linear(2, 1)
    nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
    batches = Minibatches(data, batch_size=16, epochs=5, generator=g)
    loss = lambda b: (net(b[0]) - 1).square().mean()  # noqa: E731
    fit(net, loss, batches, Optimisation(lr=lr), state=[g], track=track)
    return net


def stopped(tmp_path, **own):
    with pytest.raises(StoppedError), checkpoints(tmp_path, every=0):
        least_squares(torch.Generator().manual_seed(0), after(7), **own)
    return next(tmp_path.iterdir())


def test_finished_fits_are_not_done_again(tmp_path):
    done = []

    def count(items, what):
        for item in items:
            yield item
            done.append(item)

    def two(track):
        return [least_squares(torch.Generator().manual_seed(0), t).weight.tolist() for t in (count, track)]

    with pytest.raises(StoppedError), checkpoints(tmp_path):
        two(after(3))
    with checkpoints(tmp_path):
        first, second = two(count)
    assert (len(done), first) == (60, second)


@pytest.mark.parametrize("own", [{"data": X + 1}, {"lr": 0.2}])
def test_checkpoints_of_another_fit_are_refused(tmp_path, own):
    stopped(tmp_path)
    with pytest.raises(ValueError, match="checkpoint: expected that of the same fit"), checkpoints(tmp_path):
        least_squares(torch.Generator().manual_seed(0), after(None), **own)
    with pytest.raises(ValueError, match="checkpoint: expected that of the same fit"), checkpoints(tmp_path):
        least_squares(torch.Generator().manual_seed(1), after(None))


def test_no_damaged_checkpoint_is_read(tmp_path):
    file = stopped(tmp_path)
    whole = file.read_bytes()
    assert read_state(file)["parts"]
    for position in range(0, len(whole), 211):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="checkpoint: expected a file as it was written"):
            read_state(file)
        file.write_bytes(whole[:position])
        with pytest.raises(ValueError, match="checkpoint: expected a file as it was written"):
            read_state(file)


@pytest.mark.parametrize(("number", "stop"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_signals_end_a_fit_after_its_step_with_a_checkpoint(tmp_path, number, stop):
    def kill(items, what):
        for i, item in enumerate(items):
            if i == 11:
                os.kill(os.getpid(), number)
            yield item

    whole, before = outcome(least_squares), signal.getsignal(number)
    with pytest.raises(stop) as ended, checkpoints(tmp_path):
        outcome(least_squares, kill)
    assert getattr(ended.value, "code", None) == (143 if number == signal.SIGTERM else None)
    assert signal.getsignal(number) is before
    assert read_state(next(tmp_path.iterdir()))["parts"][0]["result"]["steps"] == 12
    with checkpoints(tmp_path):
        assert outcome(least_squares) == whole
