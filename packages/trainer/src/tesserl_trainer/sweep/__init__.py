"""Sweeps: their directories, their runs, and the launchers that train the runs."""
