"""Checkpoints of a run, and the identity of the run that each of its files repeats."""
