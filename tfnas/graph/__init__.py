"""Keras models as graphs: walking, rebuilding, weights, statistics of their layers."""
