"""One step, one round, the rounds, and the run around them."""
