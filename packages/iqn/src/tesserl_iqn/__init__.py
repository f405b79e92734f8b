"""Implicit Quantile Networks with Munchausen targets and prioritised replay, as PyTorch modules and a torchrl loss."""
