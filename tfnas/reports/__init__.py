"""Reports of results: tables, plots, HTML pages."""
