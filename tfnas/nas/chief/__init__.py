"""Searches with a chief and workers of their own: keras_tuner's protocol."""
