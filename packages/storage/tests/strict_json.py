"""JSON as its standard says."""

import json
from typing import Any


def strict(text: str) -> Any:
    """Parse JSON in which NaN and Infinity are no numbers."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)
