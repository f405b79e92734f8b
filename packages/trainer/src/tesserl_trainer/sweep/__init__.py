"""Sweeps: their directory, their runs, and the processes that train them."""
