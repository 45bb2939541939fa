"""Adapt a classifier from labelled images of one place to unlabelled images of another."""

__version__ = "0.1.0"
