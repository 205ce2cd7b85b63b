"""Quantization: number formats of weights and activations, and training for them."""
