"""The same work in plain PyTorch and Gymnasium: no import of this project, of torchrl or of tensordict."""
