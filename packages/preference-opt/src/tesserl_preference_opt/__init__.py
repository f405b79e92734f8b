"""Preference optimisation for control: pairs of trajectory segments in, a better policy out, as a torchrl loss."""
