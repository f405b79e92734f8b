"""Train, pretrain, resume, evaluate and watch runs; collect episodes."""
