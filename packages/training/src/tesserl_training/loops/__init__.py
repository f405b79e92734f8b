"""Training loops; each reads from top to bottom like the algorithm box of its paper."""
