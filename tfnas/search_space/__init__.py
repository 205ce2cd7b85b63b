"""Search spaces: which architectures there are, and how to move between them."""
