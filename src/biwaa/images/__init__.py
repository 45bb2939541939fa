"""Decoded pixels: from files and arrays to batches on the device."""
