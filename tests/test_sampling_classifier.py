"""Classifiers read as energies: labels, persistent chains, and joint models trained on blobs and on MNIST."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from latentebm.data.batches import Minibatches
from latentebm.objectives.contrast import jem_loss
from latentebm.sampling import (
    MALA,
    PMC,
    SGLD,
    ULA,
    ConditionalSampler,
    JointSampler,
    Labelled,
    ReplayBuffer,
    UnconditionalSampler,
    energy_differential,
    energy_penalty,
)
from latentebm.training.fit import fit
from latentebm.training.optimisation import Optimisation
from tests.sampling_targets import GaussianTilt, assert_mean, gen

CENTRES = torch.tensor([[-2.0, -1.0], [2.0, 1.0]])


def normal(n, generator, shape=(2,)):
    return torch.randn(n, *shape, generator=generator)


def blobs(n=600, seed=0):
    y = torch.arange(n) % 2
    return CENTRES[y] + 0.6 * torch.randn(n, 2, generator=gen(seed)), y


def shares_right(logits, draws):
    return (logits(draws.x).argmax(1) == draws.y).float().mean().item()


def logits_of_blobs(x):
    return -(x[:, None] - CENTRES).square().sum(2) / (2 * 0.36)


def test_energies():
    x, y = torch.randn(5, 2, generator=gen(1)), torch.tensor([0, 1, 1, 0, 1])
    f = logits_of_blobs(x)
    make = {"logits": logits_of_blobs, "base": normal, "classes": 2}
    torch.testing.assert_close(UnconditionalSampler(**make).energy(x, y), -f.exp().sum(1).log())
    conditional = ConditionalSampler(**make)
    torch.testing.assert_close(conditional.energy(x, y), -f[range(5), y])
    torch.testing.assert_close(JointSampler(**make).energy(x, y), -f[range(5), y])
    a, b = Labelled(x[:2], y[:2]), Labelled(x[2:], y[2:])
    e_a, e_b = conditional.energy(*a), conditional.energy(*b)
    torch.testing.assert_close(energy_differential(conditional, a, b), e_a.mean() - e_b.mean())
    torch.testing.assert_close(energy_penalty(conditional, a, b), (e_a**2).mean() + (e_b**2).mean())


def test_laws_are_those_of_the_blobs():
    """With the blobs' log-densities as logits, the samplers draw the blobs' conditional, marginal and joint laws."""
    make = {"logits": logits_of_blobs, "base": lambda n, g: 3 * normal(n, g), "classes": 2, "chunk": 1_500}
    kernel = MALA(0.2)
    given = torch.tensor([0, 1]).repeat(2_000)
    conditional = ConditionalSampler(**make).sample(4_000, kernel, 60, generator=gen(2), y=given)
    assert torch.equal(conditional.y, given)
    assert_mean(conditional.x - CENTRES[given], torch.zeros(2))
    assert_mean((conditional.x - CENTRES[given]).square(), torch.full((2,), 0.36))
    marginal = UnconditionalSampler(**make).sample(4_000, kernel, 60, generator=gen(3))
    joint = JointSampler(**make, every=7).sample(4_000, kernel, 60, generator=gen(4))
    for draws in (marginal, joint):
        nearest = CENTRES[logits_of_blobs(draws.x).argmax(1)]
        assert_mean((draws.x - nearest).square(), torch.full((2,), 0.36))
    assert shares_right(logits_of_blobs, joint) > 0.98
    assert joint.y.unique().tolist() == [0, 1]


def check_labels_law(kind=JointSampler):
    """Logits log w − ½|x|² make the labels independent of the points, with probabilities w."""
    logits = lambda x: torch.tensor([0.3, 0.7]).log() - x.square().sum(1, keepdim=True) / 2  # noqa: E731
    joint = kind(logits, normal, classes=2).sample(20_000, MALA(0.5), 2, generator=gen(4))
    assert_mean((joint.y == 1).double(), 0.7)
    assert_mean(joint.x.square(), torch.ones(2))


class Likeliest(JointSampler):
    def draw_labels(self, x, generator):
        return self.logits(x).argmax(1)


def test_joint_labels_follow_the_softmax():
    check_labels_law()
    with pytest.raises(AssertionError):
        check_labels_law(Likeliest)


def check_transitions(every=1, n_steps=5, expected=5):
    """Noise-free steps on ½|x|² shrink a chain by (1 − η) a transition: the count of transitions can be read off."""
    sampler = JointSampler(lambda x: -x.square().sum(1, keepdim=True).expand(-1, 2) / 2, normal, classes=2, every=every)
    pmc = PMC(ULA(0.5, temperature=0.0), n_steps=n_steps, restart=0.0, buffer=ReplayBuffer(torch.ones(8, 3)))
    moved = pmc.sample(sampler, 4, generator=gen(5))
    torch.testing.assert_close(moved.x, torch.full((4, 3), 0.5**expected))
    assert int((pmc.buffer.x[:, 0] == 1).sum()) == 4


def check_transitions_on_a_tilt(n_steps=5, expected=5):
    pmc = PMC(ULA(0.5, temperature=0.0), n_steps=n_steps, restart=0.0, buffer=ReplayBuffer(torch.ones(8, 2)))
    moved = pmc.draw(Untilted(), 4, generator=gen(5))
    torch.testing.assert_close(moved.latent, torch.full((4, 2), 0.5**expected))
    assert int((pmc.buffer.x[:, 0] == 1).sum()) == 4


class Untilted(GaussianTilt):
    def energy(self, u):
        return 0 * u.sum(1)


def test_persistent_chains_take_exactly_n_transitions():
    check_transitions(every=1)
    check_transitions(every=3)
    check_transitions_on_a_tilt()
    for check in (check_transitions, check_transitions_on_a_tilt):
        for n_steps in (4, 6):
            with pytest.raises(AssertionError):
                check(n_steps=n_steps)


def test_step_counts_go_on_between_label_draws(monkeypatch):
    seen = []
    monkeypatch.setattr(SGLD, "scales", lambda k, t: seen.append(t) or (0.01, 0.0))
    sampler = JointSampler(logits_of_blobs, normal, classes=2)
    sampler.sample(3, SGLD(), 4, generator=gen())
    assert sorted(set(seen)) == [0, 1, 2, 3]


def test_buffer_restarts_labels_and_survives(tmp_path):
    sampler = ConditionalSampler(logits_of_blobs, normal, classes=2)
    pmc = PMC(MALA(0.2), n_steps=10, size=400, restart=0.05)
    y = torch.tensor([1] * 150 + [0] * 50)
    for seed in range(8):
        moved = pmc.sample(sampler, 200, generator=gen(seed), y=y)
    assert torch.equal(moved.y, y)
    assert shares_right(logits_of_blobs, moved) > 0.95
    assert torch.bincount(pmc.buffer.y).tolist() == [200, 200]
    loaded = ReplayBuffer.load(pmc.buffer.save(tmp_path / "buffer.safetensors"))
    assert torch.equal(loaded.x, pmc.buffer.x)
    other = tmp_path / "other.safetensors"
    save_file({"z": loaded.x}, other)
    with pytest.raises(ValueError, match=r"path: expected a buffer's tensors x and y, got \['z'\] in"):
        ReplayBuffer.load(other)
    again = PMC(MALA(0.2), n_steps=10, buffer=loaded)
    assert torch.equal(again.sample(sampler, 50, generator=gen(9)).x, pmc.sample(sampler, 50, generator=gen(9)).x)


def test_starts_at_non_finite_energies_are_drawn_anew():
    def now_and_then(n, generator):
        x = normal(n, generator)
        return torch.where(torch.rand(n, 1, generator=generator) < 0.3, torch.nan, x)

    y = (torch.arange(200) % 2).to(torch.uint8)
    sampler = ConditionalSampler(logits_of_blobs, now_and_then, classes=2)
    moved = sampler.sample(200, MALA(0.2), 30, generator=gen(), y=y)
    assert bool(moved.x.isfinite().all())
    assert shares_right(logits_of_blobs, moved) > 0.95
    never = ConditionalSampler(logits_of_blobs, lambda n, g: torch.full((n, 2), torch.nan), classes=2)
    with pytest.raises(ValueError, match="at chain 0 after 100 redraws"):
        never.sample(3, MALA(0.2), 1, generator=gen())


def test_restart_probability_and_persistence_on_a_tilt():
    tilt = GaussianTilt()
    pmc = PMC(MALA(0.5), n_steps=20, size=4_000)
    restarted = [pmc.draw(tilt, 2_000, generator=gen(seed)).diagnostics["restarted"] for seed in range(6)]
    assert abs(sum(restarted) - 600) < 4.9 * (12_000 * 0.05 * 0.95) ** 0.5
    assert_mean(PMC(MALA(0.5), n_steps=100, size=4_000).draw(tilt, 4_000, generator=gen(7)).latent, tilt.mean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.start(2, generator=gen(), y=torch.tensor([0, 2])), r"y: expected labels of 0 … 1, got 0 … 2"),
        (lambda s: s.start(2, generator=gen(), y=torch.tensor([0.0, 1.0])), "2 integer labels"),
        (lambda s: s.start(2, generator=gen(), y=[0, 1]), "2 integer labels, got list"),
        (lambda s: s.energy(torch.ones(2, 2), torch.tensor([0, 2])), "labels of 0 … 1"),
        (
            lambda s: ConditionalSampler(logits_of_blobs, normal, classes=3).energy(
                torch.ones(1, 2), torch.tensor([0])
            ),
            r"logits: expected shape \(1, 3\), got \(1, 2\)",
        ),
        (lambda s: s.sample(2, "ula", 3, generator=gen()), "kernel: expected"),
        (lambda s: s.sample(2, ULA(0.1), 0, generator=gen()), "n_steps: expected"),
        (
            lambda s: PMC(ULA(0.1), size=5).sample(s, 6, generator=gen()),
            "size: expected a buffer of at least the batch's 6",
        ),
        (lambda s: PMC(ULA(0.1), size=5).draw(GaussianTilt(), 6, generator=gen()), "size: expected a buffer"),
        (lambda s: PMC(ULA(0.1), n_steps=0), "n_steps: expected"),
        (lambda s: PMC(ULA(0.1), restart=1.5), "restart: expected"),
        (
            lambda s: PMC(ULA(0.1), size=6).sample(s, 5, generator=gen(), y=torch.zeros(5).long()),
            "at most 3 chains of label 0",
        ),
        (lambda s: PMC(ULA(0.1), size=6).sample(s, 1, generator=gen(), y=torch.tensor([2])), "labels of 0 … 1"),
        (lambda s: ReplayBuffer(torch.ones(0, 2)), "size: expected"),
        (lambda s: ReplayBuffer(torch.ones(3, 2).long()), "floating positions"),
        (lambda s: ReplayBuffer(torch.ones(3, 2)).pick(-2, generator=gen()), "n: expected"),
        (
            lambda s: ReplayBuffer(torch.ones(3, 2)).pick(1, generator=gen(), y=torch.zeros(2).long()),
            r"1 integer labels, got \(2,\)",
        ),
        (lambda s: ReplayBuffer(torch.ones(3, 2)).pick(2, generator=gen(), y=[0, 0]), "2 integer labels, got list"),
        (lambda s: ReplayBuffer(torch.ones(3, 2)).pick(2, generator=None), "generator: expected"),
        (lambda s: s.sample(3, ULA(0.1), 2, generator=None), "generator: expected"),
        (lambda s: ReplayBuffer(torch.ones(2, 2), [0, 1]), "2 integer labels, got list"),
        (lambda s: ReplayBuffer([[1.0]]), r"floating positions \(size, …\), got list"),
        (lambda s: ReplayBuffer(torch.ones(2, 2), torch.zeros(2)), "2 integer labels"),
        (lambda s: PMC(ULA(0.1), buffer=[1.0]), "buffer: expected a ReplayBuffer or None, got list"),
        (
            lambda s: s.advance(Labelled(torch.ones(2, 2), torch.tensor([0, 2])), ULA(0.1), 1, generator=gen()),
            "labels of 0 … 1",
        ),
        (
            lambda s: PMC(ULA(0.1), buffer=ReplayBuffer(torch.ones(3, 2), torch.full((3,), 7))).sample(
                s, 2, generator=gen()
            ),
            "labels of 0 … 1",
        ),
        (
            lambda s: UnconditionalSampler(logits_of_blobs, normal, classes=5).sample(2, ULA(0.1), 1, generator=gen()),
            r"logits: expected shape \(2, 5\), got \(2, 2\)",
        ),
        (lambda s: ReplayBuffer(torch.ones(3, 2), torch.zeros(2).long()), "expected a tensor of 3 integer labels"),
        (
            lambda s: jem_loss(torch.zeros(2, 2), torch.tensor([0, 2]), torch.zeros(2), torch.zeros(2)),
            "labels of 0 … 1",
        ),
        (lambda s: jem_loss(torch.zeros(2, 2), torch.tensor([0]), torch.zeros(2), torch.zeros(2)), "logits: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(ConditionalSampler(logits_of_blobs, normal, classes=2))


def test_linear_classifier_of_blobs():
    x, y = blobs()
    net = nn.Linear(2, 2)
    fit(
        net,
        lambda b: F.cross_entropy(net(b[0]), b[1]),
        Minibatches(x, y, batch_size=100, epochs=60, generator=gen()),
        Optimisation(lr=0.05),
    )
    sampler = ConditionalSampler(net, normal, classes=2)
    draws = sampler.sample(1_000, ULA(0.05), 100, generator=gen(1))
    assert shares_right(logits_of_blobs, draws) >= 0.95


def test_jem_of_blobs():
    x, y = blobs()
    net = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 2))
    uniform = lambda n, g: 8 * torch.rand(n, 2, generator=g) - 4  # noqa: E731
    marginal = UnconditionalSampler(net, uniform, classes=2)
    conditional = ConditionalSampler(net, uniform, classes=2)
    pmc, g = PMC(ULA(0.05), n_steps=10, size=1_000), gen(2)

    def loss(batch):
        x, y = batch
        fake = pmc.sample(marginal, len(x), generator=g)
        return jem_loss(net(x), y, marginal.energy(x, y), marginal.energy(*fake), penalty=0.01)

    torch.manual_seed(0)
    fit(net, loss, Minibatches(x, y, batch_size=100, epochs=60, generator=gen(3)), Optimisation(lr=5e-3))
    assert shares_right(net, Labelled(*blobs(seed=9))) >= 0.97
    draws = conditional.sample(1_000, ULA(0.05), 200, generator=gen(4))
    assert shares_right(logits_of_blobs, draws) >= 0.90
    # The draws lie where the blobs lie, which no mere classifier's would.
    assert (draws.x - CENTRES[draws.y]).norm(dim=1).median() < 1.5
