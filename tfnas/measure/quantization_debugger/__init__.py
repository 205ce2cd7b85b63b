"""Where a quantized file departs from its float model, layer by layer."""
