"""Measurements of models and `.tflite` files: latency, quality, cost, quantization error."""
