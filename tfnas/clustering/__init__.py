"""Weight clustering: kernels whose weights share a few distinct values."""
