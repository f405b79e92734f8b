"""The version of this package; hatchling reads it."""

__version__ = "0.1.2"
