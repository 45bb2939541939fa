"""A benchmark's whole table: suites, the grid of runs, published numbers."""
