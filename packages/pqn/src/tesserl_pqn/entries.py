"""Read entries of a TensorDict."""

from __future__ import annotations

from typing import Any

from tensordict import NestedKey, TensorDictBase


def get_entry(tensordict: TensorDictBase, key: NestedKey) -> Any:
    """Return an entry.

    Raises:
        KeyError: it is missing; the message lists what there is.
        TypeError: the batch is no TensorDict.
    """
    if not isinstance(tensordict, TensorDictBase):
        raise TypeError(f"a batch must be a TensorDict, got {type(tensordict).__name__}; give TensorDict(batch, shape)")
    value = tensordict.get(key, None)
    if value is None:
        present = sorted(map(str, tensordict.keys()))
        raise KeyError(f"expected the key {key!r}, the batch has {present}; rename keys with set_keys")
    return value
