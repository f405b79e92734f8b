"""One explicit training loop per kind of data: each reads top to bottom like the algorithm box of its paper."""
