"""A latency model: the time of a model as the sum of its operators' times."""
