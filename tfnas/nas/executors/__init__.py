"""Where trials run: in this process, or on an executor."""
