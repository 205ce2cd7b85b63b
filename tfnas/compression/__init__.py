"""Compression jobs: from a trained model and data to measured files."""
