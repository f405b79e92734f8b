"""The error of stored files."""


class StorageError(Exception):
    """A stored file or its content is missing, damaged or of another kind; nothing has been changed."""
