"""The commands of ``tesserl``, one module each; ``tesserl_trainer.cli`` imports the one that is run."""
