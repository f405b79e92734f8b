"""Files of a run: checkpoints, and the identity that every file repeats."""
