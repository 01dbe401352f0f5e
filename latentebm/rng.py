"""Every random number of the package: streams made from seeds, and draws that come from an explicit generator.

A generator may live on the CPU or on the device of what is drawn. Numbers are drawn where the generator lives and then
moved, so that one on the CPU gives the same numbers whatever the model's device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from latentebm.checks import check_int, check_rng

__all__ = ["child", "draw_seed", "integers", "normal", "on_device", "permutation", "seeded", "stream", "uniform"]
__all__ += ["weighted_rows"]


def stream(seed: int, stage: int = 0) -> torch.Generator:
    """A CPU generator of its own for each stage of a job, so that one stage's draws never shift another's.

    Arguments:
        seed: of the job, 0 or more.
        stage: number of the stage.

    Raises:
        ValueError: the seed is no whole number of at least 0.

    Example:
        >>> bool(torch.rand(1, generator=stream(0, 1)) == torch.rand(1, generator=stream(0, 2)))
        False
    """
    state = np.random.SeedSequence([check_int("seed", seed, low=0), stage]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def draw_seed(generator: torch.Generator) -> int:
    """A seed below 2³¹ drawn from a generator, for libraries that take a number.

    Example:
        >>> draw_seed(torch.Generator().manual_seed(0)) == draw_seed(torch.Generator().manual_seed(0))
        True
    """
    return int(torch.randint(2**31, (1,), generator=check_rng(generator), device=generator.device))


def child(generator: torch.Generator) -> torch.Generator:
    """A CPU generator seeded from another, for choices made on the CPU whatever the model's device.

    Example:
        >>> child(torch.Generator().manual_seed(0)).device.type
        'cpu'
    """
    seed = torch.randint(2**62, (1,), generator=check_rng(generator), device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """What draws the bulk of the numbers on a device: on CUDA a generator there, seeded from one that is elsewhere.

    A GPU uses more random numbers than a processor can draw. Those draws then depend on the kind of device; splits,
    first weights and the choice of minibatches are drawn from the generator given.

    Example:
        >>> generator = torch.Generator()
        >>> on_device(generator, torch.device("cpu")) is generator
        True
    """
    if check_rng(generator).device.type == "cuda" or device.type != "cuda":
        return generator
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))


@contextmanager
def seeded(source: torch.Generator | int | None) -> Iterator[None]:
    """Seed torch's global stream from a generator, or with a number, inside a block, and give it back as it was.

    Layers initialise themselves, and Pyro draws, from the global stream; nothing else of the package does. Without a
    source the block draws from the global stream as it stands.

    Example:
        >>> with seeded(torch.Generator().manual_seed(0)):
        ...     first = torch.nn.Linear(1, 1).weight.item()
        >>> with seeded(torch.Generator().manual_seed(0)):
        ...     first == torch.nn.Linear(1, 1).weight.item()
        True
    """
    if source is None:
        yield
        return
    seed = source if isinstance(source, int) else draw_seed(source)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal draws of a shape, with the type and device of `like`.

    Example:
        >>> normal((2, 3), torch.Generator(), torch.zeros(1, dtype=torch.float64)).dtype
        torch.float64
    """
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform draws of [0, 1), with the type and device of `like`.

    Example:
        >>> uniform((2,), torch.Generator(), torch.zeros(1)).shape
        torch.Size([2])
    """
    return torch.rand(shape, generator=generator, device=generator.device).to(like)


def integers(high: int, shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Whole numbers of 0 … high − 1 on a device.

    Example:
        >>> integers(1, (3,), torch.Generator(), "cpu")
        tensor([0, 0, 0])
    """
    return torch.randint(high, shape, generator=generator, device=generator.device).to(device)


def permutation(n: int, generator: torch.Generator, device: torch.device | str) -> Tensor:
    """The numbers 0 … n − 1 in random order on a device.

    Example:
        >>> permutation(3, torch.Generator(), "cpu").sort().values
        tensor([0, 1, 2])
    """
    return torch.randperm(n, generator=generator, device=generator.device).to(device)


def weighted_rows(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw (…, n) row numbers with replacement in proportion to weights (…, K) ≥ 0, on the weights' device.

    Example:
        >>> weighted_rows(torch.tensor([0.0, 1.0]), 3, torch.Generator())
        tensor([1, 1, 1])
    """
    drawn = torch.multinomial(weight.to(generator.device), n, replacement=True, generator=generator)
    return drawn.to(weight.device)
