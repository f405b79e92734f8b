"""Training loops; each module starts with the pseudocode of its algorithm."""
