"""Quantization error of a file, layer by layer, against its float model."""
