"""Low-rank factorization: replaces a layer by two or three smaller ones with fewer MACs."""
