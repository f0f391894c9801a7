"""A scaling study of one's own: corpora, training, sweeps, the choice of the next run, a laboratory to practice in."""
