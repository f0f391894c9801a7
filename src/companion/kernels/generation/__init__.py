"""Operators of one generated token, where memory is the limit: products with a vector, attention to a cache, norms."""
