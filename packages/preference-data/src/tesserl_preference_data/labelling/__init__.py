"""A page in the browser on which a person judges pairs."""

from tesserl_preference_data.labelling.server import LabelServer
from tesserl_preference_data.labelling.session import LabellingSession

__all__ = ["LabelServer", "LabellingSession"]
