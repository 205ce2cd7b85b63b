"""Architecture search: keras_tuner's API, driven by what is measured on the file."""
