"""Low-rank factorization: one layer becomes two or three that multiply less."""
