"""Reads the files of finished or running experiments; imports nothing else of the trainer."""
