"""Whole models on the reader's own GPU: time to the first token, time of a step, and whether the numbers are right."""
