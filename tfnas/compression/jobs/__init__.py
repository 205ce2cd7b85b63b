"""The commands for one technique each: from a saved model to files and a report."""
