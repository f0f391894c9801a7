"""The mLSTM cell: float64 oracle, plain-torch forms, Triton kernels behind one call."""
