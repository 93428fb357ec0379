"""What processes that train one SAE together tell each other; for one process alone each of these is nothing.

Every process has the same weights and the same batch, and takes its share of it (`part`). Gradients are
averaged over the processes (`average`), and whatever a step reads off a batch as a whole (how often features
were active, L0, which entries are the k·B largest) is read off all the shares. Then a step is that of one
process with the whole batch, up to the rounding of sums.

This holds inside `together()` only: a program that runs processes for its own ends is left alone. How they
are started stands in `distributed.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch import distributed as dist

_COUNT: ContextVar[int] = ContextVar("processes", default=1)


@contextmanager
def together() -> Iterator[None]:
    """Training in here is that of all processes of the (initialised) process group."""
    token = _COUNT.set(dist.get_world_size() if dist.is_initialized() else 1)
    try:
        yield
    finally:
        _COUNT.reset(token)


def count() -> int:
    """How many processes train together."""
    return _COUNT.get()


def is_first() -> bool:
    """This is the process that writes files."""
    return count() == 1 or dist.get_rank() == 0


def part(x: Tensor) -> Tensor:
    """This process's share (B / count, d_in) of a batch (B, d_in); ValueError for a B that is no multiple."""
    if len(x) % count():
        raise ValueError(f"batch_size {len(x)} must be a multiple of the {count()} processes")
    return x if count() == 1 else x.chunk(count())[dist.get_rank()]


def mean(t: Tensor) -> Tensor:
    """The mean of a number or tensor over the processes; the gradient is that of this process's own."""
    if count() == 1:
        return t
    total = t.detach().clone()
    dist.all_reduce(total)
    total = total / count()
    return t + (total - t).detach() if t.requires_grad else total


def anywhere(mask: Tensor) -> Tensor:
    """True where the mask is true in some process."""
    if count() == 1:
        return mask
    found = mask.to(torch.int32)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found > 0


def among_largest(values: Tensor, n: int) -> Tensor:
    """Which of these values (E,), the n largest of this process, are among the n largest of all processes."""
    if count() == 1:
        return torch.ones_like(values, dtype=torch.bool)
    mine = torch.full((n,), -torch.inf, dtype=values.dtype, device=values.device)
    most = min(n, len(values))
    mine[:most] = values.detach().topk(most).values
    all_of_them = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(all_of_them, mine)
    return values >= torch.cat(all_of_them).topk(n).values[-1]


def average(tensors: Iterable[Tensor]) -> None:
    """Put the mean over the processes in the place of each of these."""
    for t in _in_memory_order(tensors):
        dist.all_reduce(t)
        t.div_(count())


def same(tensors: Iterable[Tensor]) -> None:
    """Put what the first process has in the place of each of these."""
    for t in _in_memory_order(tensors):
        dist.broadcast(t, 0)


def _in_memory_order(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """W_enc and its gradient lie in memory as their transposes; none in one process alone."""
    for t in tensors if count() > 1 else ():
        yield t if t.is_contiguous() else t.t()
