"""The same work in plain PyTorch and Gymnasium, without this project, torchrl or tensordict."""
