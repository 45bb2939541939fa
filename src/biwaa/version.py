"""The version, by itself: nothing is imported to read it."""

__version__ = "0.1.0"
