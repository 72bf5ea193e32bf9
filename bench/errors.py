"""What ends a benchmark without figures."""


class BenchFailed(Exception):
    """A request failed, or a part did not do what the figures would claim."""
