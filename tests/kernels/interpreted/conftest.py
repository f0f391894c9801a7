"""Triton decides between interpreter and compiler as it is imported: `test_triton_kernels.py` runs these tests, in a
process of their own with TRITON_INTERPRET=1; without it they are not collected, and fail if a file of them is named.

Here the interpreter does without two repetitions that take a third of its time and change nothing that it computes:
a table of dtypes made for every operation, and `triton.language` prepared anew for every function that a kernel calls.
"""

import os
from typing import Any


def speed_up() -> None:
    """What the interpreter computes once, it keeps."""
    import triton.language as tl
    from triton.runtime import interpreter

    known: dict[str, Any] = {}
    prepared: set[str] = set()
    look_up = interpreter._get_np_dtype

    def dtype_of(kind: Any) -> Any:
        if isinstance(kind, tl.block_type):
            return dtype_of(kind.element_ty)
        if isinstance(kind, tl.pointer_type):
            return look_up(kind)
        if kind.name not in known:
            known[kind.name] = look_up(kind)
        return known[kind.name]

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.fn.__module__ not in prepared:  # Triton's own modules are not prepared by the launch of a kernel
            prepared.add(self.fn.__module__)
            interpreter._patch_lang(self.fn)
        try:
            return self.rewrite()(*args, **kwargs)
        except Exception as error:
            raise interpreter.InterpreterError(repr(error)) from error

    interpreter._get_np_dtype = dtype_of
    interpreter.InterpretedFunction.__call__ = call


if os.environ.get("TRITON_INTERPRET") == "1":
    speed_up()
else:
    collect_ignore_glob = ["test_*.py"]
