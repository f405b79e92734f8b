"""The options of each command of ``tesserl``, one file a command; the work is done elsewhere."""
