"""A model of the results so far, which screens proposals before training."""
