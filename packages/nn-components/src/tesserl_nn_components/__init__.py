"""Plain PyTorch network blocks for deep RL: encoders, fusion, heads, noisy layers."""
