"""The techniques as steps of a compression recipe."""
