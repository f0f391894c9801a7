"""Corpora: a synthetic source of known entropy, folders of text, and tokenized data sets. Needs torch."""
