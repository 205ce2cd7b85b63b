"""Weight clustering: kernels of few distinct values."""
