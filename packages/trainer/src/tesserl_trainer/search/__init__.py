"""Searches: Optuna's trials, the runs that they are, and what comes out."""
