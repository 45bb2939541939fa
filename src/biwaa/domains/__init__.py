"""From a SPEC to pixels in batches: domains, decoding, the pixel store, augmentation, sampling."""
