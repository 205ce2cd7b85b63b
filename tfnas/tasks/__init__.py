"""Tasks: what a model is for. Nothing else knows whether it takes images, words or a table."""
