"""Whole jobs, each from data to files with proof."""
