"""Files of a run: checkpoints, the identity that every file repeats, and checked access to what was read."""
