"""What kernels of any operator need: how a launch is described, where tiles lie, precise gates."""
