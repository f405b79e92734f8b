"""Code shared by the loops: collecting, evaluating, logging, checkpoints. It knows no loop and no schema."""
