"""all-MiniLM-L6-v2 (Reimers and Gurevych; Apache 2.0), which makes vectors of sentences, in Keras."""
