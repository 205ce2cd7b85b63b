"""Files, folder locks and processes: what every long job runs on."""
