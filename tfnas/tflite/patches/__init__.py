"""Patch-based inference: the first operators of a file computed in parts, for less memory."""
