"""Operators of one generated token, where memory is the limit: products with one vector, attention to a cache, norms."""
