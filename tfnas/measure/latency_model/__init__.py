"""A latency model: the latency of a model is predicted as a sum over its operators."""
