"""The error of stored files."""


class StorageError(Exception):
    """A stored file, or what was read from one, that is missing, damaged or not ours; nothing has been changed."""
