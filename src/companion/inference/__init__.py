"""Inference times: timings of prefills and generation steps, and models of them for one size and for all sizes."""
