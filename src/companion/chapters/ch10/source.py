"""Reading a kernel in chapter 10: which blocks it tries first, and lines of its source."""

import ast
import textwrap
from importlib.util import find_spec
from pathlib import Path

import torch

from companion.errors import InputError


def block_sizes(
    kernel: str, *, d_qk: int, d_hv: int, chunk_size: int, chains: int | None = None, multiprocessors: int = 1
) -> dict[str, int]:
    """Blocks that a Triton kernel tries first for bfloat16, by the name of the constant; empty without Triton.

    Parameters
    ----------
    chains, multiprocessors
        sequences times heads of a kernel that walks along each with blocks of its state, and what of the GPU the blocks
        should fill; if not given, as for many sequences.
    """
    if find_spec("triton") is None:
        return {}
    from companion.kernels.common.device import by_programs
    from companion.kernels.mlstm.configs import candidates

    choices = candidates(kernel, d_qk=d_qk, d_hv=d_hv, chunk_size=chunk_size, dtype=torch.bfloat16)
    if chains is None:
        return dict(choices[0].blocks)
    counts = [chains * -(-d_qk // config["BLOCK_K"]) * -(-d_hv // config["BLOCK_V"]) for config in choices]
    return dict(choices[by_programs(counts, multiprocessors)[0]].blocks)


def kernel_source(module: str, function: str, *, after: str = "", before: str = "") -> str:
    """Source of a function, or the lines of it from one that starts with `after` to one before that with `before`.

    The file is read, not imported: a kernel can be shown where Triton is not installed.

    Raises
    ------
    InputError
        if there is no such module, function or line.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"no module {module!r}")
    text = Path(spec.origin).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            lines = text.splitlines()[node.lineno - 1 : node.end_lineno]
            first = _line(lines, after, 0, f"{module}.{function}")
            last = _line(lines, before, first + 1, f"{module}.{function}") if before else len(lines)
            return textwrap.dedent("\n".join(lines[first:last])).rstrip()
    raise InputError(f"{module}: no function {function!r}")


def _line(lines: list[str], start: str, first: int, where: str) -> int:
    for number in range(first, len(lines)):
        if lines[number].strip().startswith(start):
            return number
    raise InputError(f"{where}: no line starts with {start!r}")
