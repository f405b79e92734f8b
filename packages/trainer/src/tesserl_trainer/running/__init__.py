"""Runs from their configuration to their end: train, pretrain, evaluate, collect."""
