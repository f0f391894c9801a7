"""The mLSTM cell: float64 oracle, plain-torch forms and Triton kernels behind one call. Needs torch (extra `kernels`)."""
