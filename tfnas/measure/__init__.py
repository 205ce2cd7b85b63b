"""Measuring a file: latency, quality, cost."""
