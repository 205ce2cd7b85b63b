"""Compression of a trained model: techniques, fine-tuning, candidates, plan and budget."""
