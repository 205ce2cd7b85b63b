"""Drawings of numbers, for results and for reports: what is drawn, and figures of matplotlib."""
