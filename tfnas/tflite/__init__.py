"""Conversion of Keras models to checked `.tflite` files, and reading of such files."""
