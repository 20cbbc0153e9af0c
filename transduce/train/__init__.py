"""Training: loss, optimisation, the loop, checkpoints."""
