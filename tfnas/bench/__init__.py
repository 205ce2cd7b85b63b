"""Measuring: latency, quality and cost, on the artefact."""
