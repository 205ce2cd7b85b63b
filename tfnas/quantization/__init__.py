"""Quantization: which numbers a model computes with."""
