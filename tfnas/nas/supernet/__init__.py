"""Weight-sharing search: one training for all networks of a space."""
