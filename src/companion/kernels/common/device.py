"""One way to run a kernel, and what a GPU offers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch


@dataclass(frozen=True)
class Config:
    """One way to run a kernel: block sizes (its constants by name), warps per program, pipeline stages.

    `registers` of a thread at most: fewer than the compiler would take let more programs run on a multiprocessor.
    """

    blocks: tuple[tuple[str, int], ...]
    num_warps: int
    num_stages: int
    registers: int | None = None

    @cached_property
    def constants(self) -> dict[str, int]:
        """Keyword arguments of the launch."""
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {**dict(self.blocks), "num_warps": self.num_warps, "num_stages": self.num_stages, **limit}

    def __getitem__(self, name: str) -> int:
        return self.constants[name]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.blocks)
        limit = "" if self.registers is None else f", {self.registers} registers"
        return f"{sizes}, {self.num_warps} warps, {self.num_stages} stages{limit}"


def by_programs(counts: Sequence[int], multiprocessors: int) -> tuple[int, ...]:
    """Candidates with programs for nine in ten multiprocessors of the GPU, in their order, then most first.

    Kernels that walk along a sequence have few programs for a small batch: there a smaller block, though slower by
    itself, keeps more of the GPU busy.
    """
    filling = [number for number, count in enumerate(counts) if 10 * count >= 9 * multiprocessors]
    rest = sorted((number for number in range(len(counts)) if number not in filling), key=lambda n: -counts[n])
    return (*filling, *rest)


@cache
def can_overlap(device: torch.device) -> bool:
    """Whether a kernel may begin before the one in front of it has ended (programmatic dependent launch)."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def is_hopper(device: torch.device) -> bool:
    """Whether products take one operand from registers and the other from shared memory, filled by descriptors."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


@cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; where kernels are interpreted a few."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
