"""Names of metrics that commands ask for. Imports nothing, so that the command line can read it at once."""

EVALUATION = "evaluation/return"
"""Metric that compares runs by default."""
