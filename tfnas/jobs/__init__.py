"""Jobs: calls that run everything, from a model or a data set to a folder of files and a report."""
