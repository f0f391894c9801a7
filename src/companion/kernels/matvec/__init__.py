"""Product of a weight matrix and one vector, with what stands before and after it in a layer."""
