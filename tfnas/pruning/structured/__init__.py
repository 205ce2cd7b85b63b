"""Structured pruning: removes channels and the weights that depend on them."""
