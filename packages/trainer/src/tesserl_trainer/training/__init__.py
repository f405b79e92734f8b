"""Learning from data: the journal, the learner, replay, batches of pairs, and the loops that use them."""
