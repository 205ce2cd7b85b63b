"""Reports of results: Markdown, CSV, pictures and HTML pages, written into the folder of a job."""
