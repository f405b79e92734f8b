"""Group-relative policy optimisation for control, around any policy that yields log-probabilities, as a torchrl loss."""
