"""Build networks from the ``nn:`` block, name their parts, and turn policies into functions of plain tensors."""
