"""Correctness and speed of kernels on this machine: what is checked and timed, and the records it leaves."""
