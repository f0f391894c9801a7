"""Prints whether the kernel of the source, interpreted, gives the tokens of the CPU: in a process of its own, with
TRITON_INTERPRET=1. A line of JSON for each case.
"""

import json

import numpy as np
import torch

from companion.study.corpus.drawing import draw
from companion.study.corpus.grammar import Grammar
from companion.study.corpus.source_kernel import DeviceTables, draw_on_device

CASES = (
    # parameters, first number, documents, length, stream; 33 documents are two programs, one of them nearly empty
    ({}, 0, 33, 40, 0),
    ({"seed": (1 << 62) + 12345, "vocab_size": 16}, (1 << 40) - 3, 7, 40, 1),
    ({"seed": 5, "vocab_size": 65536, "max_distance": 16}, (1 << 63) - 2, 2, 30, 2),
    ({"vocab_size": 32, "class_bits": 5, "weights": (0.02, 0.1, 0.1, 0.1, 0.34, 0.34)}, 9, 3, 40, 0),
    ({}, 1, 1, 1, 1),
    ({}, 1, 0, 5, 0),
)
for parameters, first, number, length, stream in CASES:
    grammar = Grammar(**parameters)
    numbers = np.arange(number, dtype=np.int64) + first
    tables = DeviceTables.of(grammar, torch.device("cpu"))
    found = draw_on_device(tables, torch.from_numpy(numbers), length, stream)
    expected = draw(grammar, numbers, length, stream)
    same = found.dtype == torch.int64 and np.array_equal(found.numpy(), expected)
    print(json.dumps({"case": [parameters, first, number, length, stream], "same": bool(same)}), flush=True)
