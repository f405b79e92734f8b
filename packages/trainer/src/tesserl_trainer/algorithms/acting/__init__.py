"""Build the acting side of an algorithm, without a loss, for processes that do not learn.

These modules do not import torchrl: that import is most of the start-up time of such a process.
"""
