"""Pruning: sets the least important weights to zero, and keeps them zero in training."""
