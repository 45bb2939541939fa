"""From files and arrays to pixels, and from pixels to batches on the device."""
