"""Batches of preference pairs, entries added to their steps, and a buffer of the newest pairs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor

from tesserl_collectors.transfers import Uploads
from tesserl_policy import returns_to_go
from tesserl_preference_data import PreferencePairs, SegmentBlock, SegmentPool, concatenate
from tesserl_storage.errors import StorageError
from tesserl_storage.fields import Fields

Part = tuple[PreferencePairs, Tensor]
"""Pairs, and indices into them."""

REFERENCE, VALUE_TARGET, SCORE = "reference_log_prob", "value_target", "score"


STAYING = ("mask", "label")
"""Entries of a batch that stay on the CPU."""


def _name(key: NestedKey) -> str:
    """Return the last part of a key."""
    return key if isinstance(key, str) else _name(key[-1])


class Shuffled:
    """An endless stream of indices in random order; each index occurs once per pass.

    Args:
        count: number of indices, at least 1: 0 to ``count - 1``.
    """

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0
        self._order = torch.empty(0, dtype=torch.int64)

    def take(self, number: int) -> Tensor:
        """Return the next indices, ``[number]``."""
        parts, missing = [], number
        while missing:
            place = self.taken % self.count
            if place == 0:
                self._order = torch.randperm(self.count)
            parts.append(self._order[place : place + missing])
            self.taken += len(parts[-1])
            missing -= len(parts[-1])
        return torch.cat(parts) if parts else self._order[:0]

    def state_dict(self) -> dict[str, Any]:
        """Return the order of this pass and the position in it."""
        return {"order": self._order, "taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``.

        Raises:
            StorageError: the state is not a permutation of the indices.
        """
        fields = Fields(state, "order")
        order, taken = fields.tensor("order", (None,), torch.int64), fields.integer("taken")
        whole = torch.equal(order.sort().values, torch.arange(self.count))
        if not whole and not (taken == 0 and len(order) == 0):  # an empty order would make `take` loop forever
            raise StorageError(f"order: expected each number below {self.count} once, got {len(order)} numbers")
        self._order, self.taken = order, taken


class Batches:
    """Makes the batches of a loss from pairs.

    Masks and labels stay on the CPU: losses read numbers from them, which would wait for a GPU.

    Args:
        keys: entries of the steps.
        ranking: make single segments with their scores instead of pairs.
        device: device of the batches.
    """

    def __init__(self, keys: Sequence[str], *, ranking: bool = False, device: torch.device | str = "cpu") -> None:
        self.keys, self.ranking = list(keys), ranking
        self._upload = Uploads(device)

    def __call__(self, *parts: Part) -> TensorDictBase:
        """Gather pairs of one or more sources, padded to one length.

        Returns:
            ``chosen`` and ``rejected`` ``[n, T]`` and ``label`` ``[n]``; or with ``ranking`` ``trajectory`` ``[2 n,
            T]``, ``score`` and ``group`` ``[2 n]``.
        """
        batch = self._gathered(*parts)
        if not self.ranking:
            return self._moved(batch)
        trajectory: TensorDictBase = torch.cat([batch["chosen"], batch["rejected"]])
        score = torch.where(trajectory["mask"], trajectory[SCORE].squeeze(-1), 0.0).sum(dim=1, dtype=torch.float64)
        group = [
            *(pairs.pool.group[pairs.chosen_segment[index]] for pairs, index in parts),
            *(pairs.pool.group[pairs.rejected_segment[index]] for pairs, index in parts),
        ]
        ranked = {"trajectory": trajectory, "score": score, "group": torch.cat(group)}
        return self._moved(TensorDict(ranked, [len(trajectory)]))

    def pairs(self, *parts: Part) -> TensorDictBase:
        """Gather pairs as pairs, even if ``ranking`` is set."""
        return self._moved(self._gathered(*parts))

    def _gathered(self, *parts: Part) -> TensorDictBase:
        """Gather pairs on the CPU."""
        segments = [torch.cat([pairs.chosen_segment[index], pairs.rejected_segment[index]]) for pairs, index in parts]
        longest = max(
            int(pairs.pool.length[segment].max()) for (pairs, _), segment in zip(parts, segments, strict=True)
        )
        chosen, rejected = [], []
        for (pairs, index), segment in zip(parts, segments, strict=True):
            keys = [key for key in self.keys if key in pairs.pool.keys]  # reference entries do not exist before cloning
            steps = pairs.pool.gather(segment, pad_to=longest, keys=keys)
            chosen.append(steps[: len(index)])
            rejected.append(steps[len(index) :])
        label = torch.cat([pairs.label[index] for pairs, index in parts])
        return TensorDict({"chosen": torch.cat(chosen), "rejected": torch.cat(rejected), "label": label}, [len(label)])

    def _moved(self, batch: TensorDictBase) -> TensorDictBase:
        """Move the entries of a batch to the device, except masks and labels."""
        if self._upload.device.type == "cpu":
            return batch
        leaves = dict(batch.items(include_nested=True, leaves_only=True))
        moved = batch.copy()
        for key, leaf in self._upload({key: leaf for key, leaf in leaves.items() if _name(key) not in STAYING}).items():
            moved.set(key, leaf)
        return moved

    def all_of(self, pairs: PreferencePairs, size: int) -> Iterator[TensorDictBase]:
        """Yield batches of all pairs, in their order."""
        for index in torch.split(torch.arange(len(pairs)), size):
            yield self.pairs((pairs, index))


class NewestPairs:
    """A buffer of the newest pairs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pairs: PreferencePairs | None = None

    def __len__(self) -> int:
        return 0 if self.pairs is None else len(self.pairs)

    def add(self, pairs: PreferencePairs) -> None:
        """Add pairs; drop the oldest if there are too many."""
        if len(pairs):
            every = pairs if self.pairs is None else concatenate([self.pairs, pairs])
            self.pairs = every.select(slice(-self.size, None))

    def state_dict(self) -> dict[str, Any]:
        """Return the pairs with their segments."""
        pairs = self.pairs
        if pairs is None:
            return {}
        used, number = torch.unique(torch.cat([pairs.chosen_segment, pairs.rejected_segment]), return_inverse=True)
        steps = TensorDict.cat([pairs.pool.segment(segment) for segment in used.tolist()])
        return {
            "steps": {str(key): entry for key, entry in steps.items()},
            "length": pairs.pool.length[used],
            "group": pairs.pool.group[used],
            "chosen": number[: len(pairs)],
            "rejected": number[len(pairs) :],
            "label": pairs.label,
            "margin": pairs.margin,
            "source": pairs.source,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict``."""
        if not state:
            return
        _check_pairs(Fields(state, "pairs"), self.size)
        length = state["length"]
        steps = TensorDict(dict(state["steps"]), [int(length.sum())])
        pool = SegmentPool([SegmentBlock(steps, length.cumsum(0) - length, length, state["group"])])
        names = {name: state[name] for name in ("label", "margin", "source")}
        self.pairs = PreferencePairs(pool, state["chosen"], state["rejected"], **names)


def _check_pairs(fields: Fields, size: int) -> None:
    """Refuse saved pairs whose parts do not belong together."""
    length = fields.tensor("length", (None,), torch.int64)
    chosen = fields.tensor("chosen", (None,), torch.int64)
    if not 0 < len(chosen) <= size or not bool((length > 0).all()):
        raise StorageError(f"pairs: expected 1 to {size} pairs of segments with steps, got {len(chosen)} pairs")
    for name in ("label", "margin"):
        fields.tensor(name, (len(chosen),), torch.float32)
    fields.tensor("rejected", (len(chosen),), torch.int64)
    if len(fields.items("source")) != len(chosen):
        raise StorageError(f"pairs: source: expected {len(chosen)} of them, got {len(fields.items('source'))}")
    fields.tensor("group", (len(length),), torch.int64)
    segments = torch.cat([chosen, fields.tensor("rejected", (None,), torch.int64)])
    if int(segments.min()) < 0 or int(segments.max()) >= len(length):
        raise StorageError(f"pairs: expected segments below {len(length)}, got {int(segments.max())}")
    steps = fields.fields("steps")
    if wrong := [name for name, entry in steps.value.items() if len(entry) != int(length.sum())]:
        raise StorageError(f"pairs.steps: expected {int(length.sum())} steps, got others of {', '.join(wrong)}")


def with_entries(
    pairs: PreferencePairs, keys: Sequence[str], *, value_discount: float | None = None, score_discount: float = 1.0
) -> PreferencePairs:
    """Return the pairs with only the per-step entries that learning reads.

    Args:
        pairs: new or stored pairs, with ``score`` or ``reward`` if the result needs one of them.
        keys: entries of the result; ``value_target`` is the return to the end of the segment, ``score`` a step's
            contribution to the segment's score.
        value_discount: discount of one step in the returns.
        score_discount: weight of a step in the score relative to the step before.
    """
    blocks = []
    for block in pairs.pool.blocks:
        entries = {key: block.steps.get(key) for key in keys if key not in (SCORE, VALUE_TARGET, REFERENCE)}
        _, place, index = block.layout()
        if SCORE in keys:
            score = block.steps.get(SCORE if SCORE in pairs.pool.keys else "reward").reshape(-1, 1).double()
            weight = score.new_zeros(score.shape)
            weight[index] = (score_discount ** place.double()).unsqueeze(1)
            entries[SCORE] = weight * score
        if VALUE_TARGET in keys and value_discount is not None:
            entries[VALUE_TARGET] = _returns(block, value_discount)
        blocks.append(replace(block, steps=TensorDict(entries, block.steps.batch_size)))
    return PreferencePairs(
        SegmentPool(blocks),
        pairs.chosen_segment,
        pairs.rejected_segment,
        label=pairs.label,
        margin=pairs.margin,
        source=pairs.source,
    )


def _returns(block: SegmentBlock, discount: float, chunk: int = 1024) -> Tensor:
    """Return the returns ``[N, 1]`` from each step to the end of its segment; 0 for steps of no segment."""
    pool, start = SegmentPool([block]), block.start
    returns = torch.zeros(len(block.steps), 1)
    for segments in torch.split(torch.arange(len(pool)), chunk):
        rows = pool.gather(segments, keys=["reward"])
        mask = rows["mask"]
        to_go = returns_to_go(rows["reward"].reshape(mask.shape), mask, discount=discount)
        index = start[segments].unsqueeze(1) + torch.arange(mask.shape[1])
        returns[index[mask]] = to_go[mask].unsqueeze(1)
    return returns


@torch.no_grad()
def with_reference(
    pairs: PreferencePairs, network: Any, *, device: torch.device | str, precision: str, chunk: int = 1 << 14
) -> PreferencePairs:
    """Add the log-probabilities of a fixed policy, computed once per step.

    Args:
        pairs: pairs with the entries that the policy reads.
        network: an ``ActorCritic`` in evaluation mode, or anything with its methods.
        device: device of the network.
        precision: precision of the trained policy, so that both policies agree exactly at the start.
        chunk: number of steps evaluated at once.
    """
    device = torch.device(device)
    values = []
    rounded = torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with rounded:
        for block in pairs.pool.blocks:
            parts = []
            for steps in block.steps.split(chunk):
                rows = steps.to(device)
                parameters = network.policy_parameters(*(rows[key] for key in network.in_keys))
                parts.append(network.distribution(*parameters).log_prob(rows["action"]).float().cpu())
            values.append(torch.cat(parts))
    return pairs.with_steps(REFERENCE, values)
