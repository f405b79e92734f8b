"""Goes once over the pairs of a store and prints its anonymous memory, in MB; a second argument adds a reference."""

import json
import sys
from pathlib import Path

import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor

from tesserl_preference_data import load_pairs
from tesserl_preference_opt import precompute_reference_log_probs


def main(path: str, *, with_reference: bool) -> None:
    torch.set_num_threads(1)
    pairs = load_pairs(path)
    if with_reference:
        width = pairs.pool.blocks[0].steps["observation"].shape[-1]
        policy = TensorDictModule(nn.Linear(width, 2), ["observation"], ["logits"])
        actor = ProbabilisticActor(policy, ["logits"], distribution_class=Categorical, return_log_prob=True)
        pairs = precompute_reference_log_probs(pairs, actor)
    for batch in pairs.minibatches(64):
        batch["chosen", "observation"].sum()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"megabytes": int(status["RssAnon"].split()[0]) / 1024}))


if __name__ == "__main__":
    main(sys.argv[1], with_reference=len(sys.argv) > 2)
