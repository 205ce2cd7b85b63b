"""TFLite Micro: its interpreter on this machine, and its memory."""
