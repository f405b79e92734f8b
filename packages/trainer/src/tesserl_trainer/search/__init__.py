"""Searches: Optuna's trials, their runs and the results."""
