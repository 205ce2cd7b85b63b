"""Quantisation: which numbers a model computes with."""
