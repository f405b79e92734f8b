"""The network, the targets and the loss with torchrl's own collector, actor and exploration."""

import warnings

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictSequential
from torchrl.data import Bounded, Categorical, Composite
from torchrl.envs import EnvBase
from torchrl.modules import EGreedyModule, QValueActor

from tesserl_nn_components import VectorEncoder
from tesserl_pqn import PQNLoss, QLambdaTargets, QNetwork

with warnings.catch_warnings():  # deprecations of its own classes, on import only (torchrl 0.14.1)
    warnings.simplefilter("ignore", DeprecationWarning)
    from torchrl.collectors import Collector

NUM_ENVS, LENGTH, LIMIT = 8, 4, 12


class Corridor(EnvBase):
    """Walk right to the end of a corridor: reward 1 and termination there, truncation after twelve steps."""

    def __init__(self):
        super().__init__(device="cpu", batch_size=[NUM_ENVS])
        shape = (NUM_ENVS, LENGTH)
        self.observation_spec = Composite(observation=Bounded(0.0, 1.0, shape), shape=(NUM_ENVS,))
        self.action_spec = Categorical(2, shape=(NUM_ENVS,))
        self.reward_spec = Bounded(0.0, 1.0, (NUM_ENVS, 1))
        flag = Categorical(2, shape=(NUM_ENVS, 1), dtype=torch.bool)
        self.full_done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(NUM_ENVS,))
        self.position, self.age = torch.zeros(NUM_ENVS, dtype=torch.int64), torch.zeros(NUM_ENVS, dtype=torch.int64)

    def _observe(self):
        return torch.nn.functional.one_hot(self.position, LENGTH).float()

    def _reset(self, tensordict=None):
        where = torch.ones(NUM_ENVS, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            where = tensordict["_reset"].squeeze(-1)
        self.position[where] = self.age[where] = 0
        flags = {name: torch.zeros(NUM_ENVS, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        return TensorDict({"observation": self._observe(), **flags}, [NUM_ENVS])

    def _step(self, tensordict):
        self.position = (self.position + 2 * tensordict["action"] - 1).clamp(0, LENGTH - 1)
        self.age += 1
        terminated = (self.position == LENGTH - 1).unsqueeze(-1)
        truncated = (self.age >= LIMIT).unsqueeze(-1)
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        return TensorDict({"observation": self._observe(), "reward": terminated.float(), **flags}, [NUM_ENVS])

    def _set_seed(self, seed):
        pass


def test_q_values_of_a_corridor_are_learned_in_torchrls_pipeline():
    torch.manual_seed(1)
    network = QNetwork(VectorEncoder(LENGTH, hidden_sizes=[32], layer_norm=True), 2)
    actor = QValueActor(network, in_keys=["observation"], action_space="categorical")
    explore = EGreedyModule(Categorical(2, shape=(NUM_ENVS,)), eps_init=0.3, eps_end=0.3, annealing_num_steps=1)
    targets, loss = QLambdaTargets(network, discount=0.9, lambda_=0.65), PQNLoss(network)
    optimizer = torch.optim.RAdam(loss.parameters(), lr=5e-3)
    collector = Collector(
        Corridor(),
        TensorDictSequential(actor, explore),
        frames_per_batch=16 * NUM_ENVS,
        total_frames=15 * 16 * NUM_ENVS,
        auto_register_policy_transforms=False,
    )
    for rollout in collector:
        batch = targets(rollout).flatten()
        for _ in range(10):
            for minibatch in batch[torch.randperm(len(batch))].split(64):
                optimizer.zero_grad()
                loss(minibatch)["loss"].backward()
                optimizer.step()
    collector.shutdown()
    values = network(torch.eye(LENGTH))[: LENGTH - 1].amax(-1)
    torch.testing.assert_close(values, torch.tensor([0.81, 0.9, 1.0]), atol=0.15, rtol=0)
    assert network(torch.eye(LENGTH))[: LENGTH - 1].argmax(-1).tolist() == [1, 1, 1]
