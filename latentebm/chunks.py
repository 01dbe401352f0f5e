"""How much is evaluated at once: sizes chosen by the device and by what one item holds in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentebm.checks import check_int

__all__ = ["CHAIN_NUMBERS", "chunk_size", "decode_chunk", "in_chunks"]

CHAIN_NUMBERS = 1_024  # a chain's position, gradient and the activations of a small energy network
# Numbers held at once, and the most items: on a CPU what its caches hold; a GPU needs large batches to be busy.
NUMBERS = {"cpu": 2**22, "cuda": 2**27}
MOST = {"cpu": 2**14, "cuda": 2**20}


def chunk_size(numbers: int, device: torch.device | str = "cpu") -> int:
    """Items evaluated at once on a device, a power of two, where one holds so many `numbers`, activations included.

    Example:
        >>> chunk_size(2), chunk_size(28 * 28), chunk_size(3 * 64 * 64), chunk_size(CHAIN_NUMBERS)
        (16384, 4096, 256, 4096)
    """
    kind = torch.device(device).type
    fit = NUMBERS.get(kind, NUMBERS["cpu"]) // check_int("numbers", numbers)
    return min(MOST.get(kind, MOST["cpu"]), 1 << max(0, fit.bit_length() - 1))


def decode_chunk(model: object, device: torch.device | str = "cpu") -> int:
    """Codes whose data a model decodes at once, by the size of its data where it says their `data_shape`.

    Example:
        >>> class Faces:
        ...     data_shape = (3, 64, 64)
        >>> decode_chunk(Faces()), decode_chunk(None)
        (256, 4096)
    """
    return chunk_size(max(CHAIN_NUMBERS, math.prod(getattr(model, "data_shape", ()))), device)


def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, size: int | None = None, *, dim: int = 0) -> Tensor:
    """A function of items (N, *event), evaluated chunk by chunk and joined along axis `dim` of its result.

    That bounds the memory of what lies between; a `size` of None is chosen by the device and the size of one item.

    Example:
        >>> in_chunks(lambda x: x.sum(1), torch.ones(5, 2), 2)
        tensor([2., 2., 2., 2., 2.])
    """
    size = chunk_size(max(1, x[:1].numel()), x.device) if size is None else size
    return torch.cat([function(part) for part in x.split(size)], dim)
