"""What the loops share: collecting, evaluating, logging, checkpoints. Knows no loop and no schema."""
