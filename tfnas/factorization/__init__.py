"""Low-rank factorisation: one layer becomes two or three that multiply less."""
