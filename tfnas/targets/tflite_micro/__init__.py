"""TFLite Micro: its interpreter, run here, and its memory."""
