"""From the block of an algorithm to what acts alone: modules without a loss, for processes that do not learn.

They import no torchrl, which is most of the time that such a process takes to start.
"""
