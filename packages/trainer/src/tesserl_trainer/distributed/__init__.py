"""Collectors in other processes: their supervisor, their processes and the memory shared with them."""
