"""Triton decides between interpreter and compiler as it is imported: `test_triton_kernels.py` runs these tests, in a
process of their own with TRITON_INTERPRET=1; without it they are not collected, and fail if a file of them is named."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
