"""Triton decides between interpreter and compiler as it is imported: `test_triton_kernels.py` runs these tests, in a
process of their own with TRITON_INTERPRET=1; anywhere else they are not collected."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
