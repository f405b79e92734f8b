"""DPO on a policy from outside of Tesserl: a module that returns an object with `.logits`.

The task: of three actions, the right one is where the observation is largest; a segment with more right actions is
preferred. Pairs are random. Afterwards the policy chooses right in at least 90 % of new states, in seconds.
"""

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical

from tesserl_preference_opt import PreferenceLoss

NUM_PAIRS, LENGTH = 2_000, 8


@dataclass
class Output:
    """Output of the model, like the outputs of transformers' models."""

    logits: Tensor


class Model(nn.Module):
    """A third-party network."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, observation: Tensor) -> Output:
        """Return the logits of three actions, in an object."""
        return Output(self.layers(observation))


class Logits(nn.Module):
    """Unwrap the logits from the output of the model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, observation: Tensor) -> Tensor:
        """Return the logits."""
        return self.model(observation).logits


torch.manual_seed(1)
model = Model()
actor = ProbabilisticTensorDictSequential(
    TensorDictModule(Logits(model), in_keys=["observation"], out_keys=["logits"]),
    ProbabilisticTensorDictModule(in_keys=["logits"], out_keys=["action"], distribution_class=Categorical),
)
loss = PreferenceLoss(actor, beta=0.5, reference_network="copy")
optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)

observation = torch.randn(2, NUM_PAIRS, LENGTH, 3)
action = torch.randint(3, (2, NUM_PAIRS, LENGTH))
score = (action == observation.argmax(dim=-1)).sum(dim=-1)
first = score[0] >= score[1]
sides = []
for better in (True, False):
    index = torch.where(first, 0, 1) if better else torch.where(first, 1, 0)
    rows = index, torch.arange(NUM_PAIRS)
    segment = {"observation": observation[rows], "action": action[rows]}
    mask = torch.ones(NUM_PAIRS, LENGTH, dtype=torch.bool)
    sides.append(TensorDict({**segment, "mask": mask}, [NUM_PAIRS, LENGTH]))
pairs = TensorDict({"chosen": sides[0], "rejected": sides[1]}, [NUM_PAIRS])[score[0] != score[1]]

for _ in range(10):
    for batch in pairs[torch.randperm(len(pairs))].split(64):
        optimizer.zero_grad()
        loss(batch)["loss"].backward()
        optimizer.step()

new = torch.randn(1_000, 3)
with torch.no_grad():
    right = float((model(new).logits.argmax(dim=-1) == new.argmax(dim=-1)).float().mean())
print(f"DPO: right in {right:.0%} of new states")
if right < 0.9:
    raise SystemExit("expected at least 90 %")
