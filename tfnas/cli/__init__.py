"""The `tfnas` command."""
