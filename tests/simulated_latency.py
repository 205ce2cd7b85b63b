"""Latencies that no clock gives: the same on every machine, however busy it is."""


class Time:
    """A simulated latency: 1 ms plus 1 ms for each 10,000 bytes of the file."""

    def __init__(self, file):
        self.p10_ms = 1 + file.size / 10_000


def time_by_size(calls):
    """Returns what measures files by their size, and notes its settings in a list."""

    def measure(files, **settings):
        calls.append(settings)
        reference, *found = (Time(file) for file in files)
        reference.p10_ms = 1.0
        return [reference, *found]

    return measure
