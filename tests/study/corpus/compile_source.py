"""Compiles the kernel of the source for GPUs that need not be there; prints what it takes, a line of JSON for each.

In a process of its own: TRITON_CACHE_DIR=<empty folder> python compile_source.py, with tests/kernels on PYTHONPATH.
"""

import json
import re

import torch
from absent_gpu import AbsentGPU
from triton.runtime import driver

from companion.study.corpus import source_kernel
from companion.study.corpus.grammar import Grammar

for capability in (80, 90):
    driver.set_active(AbsentGPU(capability))
    for vocab_size in (1024, 65536) if capability == 90 else (1024,):
        grammar = Grammar(vocab_size=vocab_size)
        tables = source_kernel.DeviceTables.of(grammar, torch.device("cpu"))
        numbers = torch.arange(64)
        out = torch.zeros(64, 1025, dtype=torch.int64)
        follower = torch.zeros(64, vocab_size + 1, dtype=torch.int32)
        arguments = (out, follower, numbers, tables.constants, *tables.tables, 64, 1025, 1)
        sizes = {"BITS": grammar.bits, "DISTANCE_BITS": 12, "BLOCK": source_kernel.BLOCK}
        found = source_kernel.draw_documents.warmup(*arguments, grid=(2,), num_warps=1, num_stages=1, **sizes)
        ptx = found.asm["ptx"]
        notes = {
            "capability": capability,
            "vocab_size": vocab_size,
            "shared_bytes": found.metadata.shared,
            # a load by the read-only path may miss what the program wrote
            "read_only_loads": ptx.count("ld.global.nc"),
            "barriers": ptx.count("bar.sync") + ptx.count("bar.warp.sync") + ptx.count("barrier.sync"),
            "stores": ptx.count("st.global"),
            "carried": re.findall(r"scf.yield ([^:]*):", found.asm["ttir"])[-1].count("%"),
        }
        print(json.dumps(notes), flush=True)
