"""Train deep-RL agents from one YAML file: the tesserl command, its loops, checkpoints and evaluation."""
