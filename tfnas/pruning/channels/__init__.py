"""Structured pruning: channels that really go, with everything that depends on them."""
