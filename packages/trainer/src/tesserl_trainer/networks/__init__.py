"""Networks of the ``nn:`` block, their named parts, and policies as functions of plain tensors."""
