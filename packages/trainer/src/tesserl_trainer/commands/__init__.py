"""The options of each ``tesserl`` command, one file per command; other modules do the work."""
