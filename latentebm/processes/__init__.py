"""Processes that do one job together, over torch.distributed: who this one is, and what they exchange.

Every process runs the same program with the same arguments. Where there is one alone, everything here does nothing. An
exchange is reached by all or by none: work that only some of them do belongs into `on_main`, or into `solo`.
"""

from latentebm.processes.exchanges import from_main, gather, gather_rows, mean, on_main, spread, together, tree
from latentebm.processes.lost import LostRankError, exchange, first_to_tell
from latentebm.processes.members import grouped, own_rows, own_stream, rank, share, solo, world
from latentebm.processes.torchrun import joined, launched

__all__ = [
    "LostRankError",
    "exchange",
    "first_to_tell",
    "from_main",
    "gather",
    "gather_rows",
    "grouped",
    "joined",
    "launched",
    "mean",
    "on_main",
    "own_rows",
    "own_stream",
    "rank",
    "share",
    "solo",
    "spread",
    "together",
    "tree",
    "world",
]
