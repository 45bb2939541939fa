"""From a SPEC, or Python objects, to a domain: images and, apart from them, labels and classes."""
