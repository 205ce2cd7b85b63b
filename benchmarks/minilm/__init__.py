"""all-MiniLM-L6-v2 (Reimers and Gurevych; Apache 2.0) in Keras: vectors of sentences."""
