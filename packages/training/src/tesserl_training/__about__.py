"""The version of this package; hatchling reads it."""

__version__ = "0.2.0"
