"""The techniques: one file each, and one table of them."""
