"""The file that names the runs of a sweep; it is read without the schema."""

ORDER = "sweep.json"
"""File in a sweep's directory: its ``tasks`` and ``variants`` in their order, in which a comparison shows them, and the
paths of the ``runs`` that it shall have."""
