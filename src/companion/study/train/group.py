"""The processes that train one run together: one, or those of a torch.distributed group. Needs torch.

Every process holds all weights and takes its part of every batch; gradients are averaged by one reduction of a flat
buffer (data parallelism).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from companion.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """`size` processes, of which this is number `rank`.

    Examples
    --------
    >>> Group.current()
    Group(rank=0, size=1)
    """

    rank: int
    size: int

    @classmethod
    def current(cls) -> "Group":
        """The default group of torch.distributed if there is one, else this process alone."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls(0, 1)

    def part(self, number: int) -> int:
        """Sequences of this process, of a batch of `number`.

        Raises
        ------
        InputError
            if the batch cannot be shared equally.
        """
        if number % self.size:
            raise InputError(f"batch_size_seqs: {number} sequences cannot be shared equally by {self.size} processes")
        return number // self.size

    def average_(self, tensor: Tensor) -> None:
        """Put the mean over all processes in place of a tensor."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.size)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)], device=device)
        dist.all_reduce(flags)
        return bool(flags.item())

    def once(self, action: Callable[[], T]) -> T:
        """What an action returns, or raises as an InputError, in process 0, the only one that does it."""
        if self.size == 1:
            return action()
        found: list[Any] = [None, None]
        if self.rank == 0:
            try:
                found[0] = action()
            except InputError as error:
                found[1] = error
        dist.broadcast_object_list(found)
        if found[1] is not None:
            raise found[1]
        return found[0]

    def spread_(self, tensors: Iterable[Tensor]) -> None:
        """Put the values of process 0 in place of tensors."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)
