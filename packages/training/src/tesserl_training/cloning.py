"""Behaviour cloning before an algorithm begins."""

from dataclasses import dataclass

from tesserl_training.learner import Learner


@dataclass
class Cloning:
    """Behaviour cloning for a number of gradient updates, with a separate loss and optimiser."""

    learner: Learner
    num_updates: int
