"""Learners on several ranks: joining them, what they agree on, their shares of a batch, and their checkpoint."""
