"""Search algorithms: which architecture is tried next."""
