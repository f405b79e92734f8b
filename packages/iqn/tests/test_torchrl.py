"""The loss and the policy in torchrl's own pipeline: collector, replay buffer, target updaters and trainer."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.data import Bounded, Categorical, Composite, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.objectives import HardUpdate, SoftUpdate
from torchrl.trainers import ReplayBufferTrainer, Trainer

from tesserl_iqn import IQNLoss, QuantileNetwork, QuantilePolicy
from tesserl_nn_components import VectorEncoder

NUM_ENVS, LENGTH, LIMIT = 4, 5, 20


class Corridor(EnvBase):
    """Walk right to the end of a corridor: reward 1 and termination there, truncation after twenty steps."""

    def __init__(self):
        super().__init__(device="cpu", batch_size=[NUM_ENVS])
        shape = (NUM_ENVS, LENGTH)
        self.observation_spec = Composite(observation=Bounded(0.0, 1.0, shape), shape=(NUM_ENVS,))
        self.action_spec = Categorical(2, shape=(NUM_ENVS,))
        self.reward_spec = Bounded(0.0, 1.0, (NUM_ENVS, 1))
        flag = Categorical(2, shape=(NUM_ENVS, 1), dtype=torch.bool)
        self.full_done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(NUM_ENVS,))
        self.position = torch.zeros(NUM_ENVS, dtype=torch.int64)
        self.age = torch.zeros(NUM_ENVS, dtype=torch.int64)

    def _observe(self):
        return torch.nn.functional.one_hot(self.position, LENGTH).float()

    def _reset(self, tensordict=None):
        where = torch.ones(NUM_ENVS, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            where = tensordict["_reset"].squeeze(-1)
        self.position[where] = 0
        self.age[where] = 0
        flags = {name: torch.zeros(NUM_ENVS, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        return TensorDict({"observation": self._observe(), **flags}, [NUM_ENVS])

    def _step(self, tensordict):
        move = 2 * tensordict["action"] - 1
        self.position = (self.position + move).clamp(0, LENGTH - 1)
        self.age += 1
        terminated = (self.position == LENGTH - 1).unsqueeze(-1)
        truncated = (self.age >= LIMIT).unsqueeze(-1)
        return TensorDict(
            {
                "observation": self._observe(),
                "reward": terminated.float(),
                "done": terminated | truncated,
                "terminated": terminated,
                "truncated": truncated,
            },
            [NUM_ENVS],
        )

    def _set_seed(self, seed):
        pass


def build():
    torch.manual_seed(1)
    body = VectorEncoder(LENGTH, hidden_sizes=[16], running=True)
    network = QuantileNetwork(body, 2, hidden_sizes=(16,), noisy=True)
    loss = IQNLoss(network, discount=0.9, num_policy_taus=8)
    policy = QuantilePolicy(network, num_taus=8, epsilon=0.2)
    return network, loss, policy


def collector(policy, total_frames):
    return Collector(
        Corridor(),
        policy,
        frames_per_batch=2 * NUM_ENVS,
        total_frames=total_frames,
        auto_register_policy_transforms=False,
    )


def replay():
    return TensorDictReplayBuffer(storage=LazyTensorStorage(1000), batch_size=32)


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


def assert_sound(loss):
    """Ties are kept, and statistics are those that were shown to the online network."""
    networks = (loss.value_network, loss.target_value_network)
    params = (loss.value_network_params, loss.target_value_network_params)
    for network, entries in zip(networks, params, strict=True):
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            assert storage(entries[tuple(name.split("."))]) == storage(tensor), name
    online, target = (network.body.normalizer for network in networks)
    assert online.count > 0
    for name in ("mean", "variance", "count"):
        assert torch.equal(getattr(online, name), getattr(target, name))


class Watch:
    """Remembers the target's noise before each optimisation step."""

    def __init__(self, loss):
        self.layer = loss.target_value_network.head.layers[0]
        self.noise = []

    def __call__(self, *_):
        self.noise.append(self.layer.epsilon_in.clone())

    def assert_always_new(self, at_least):
        assert len(self.noise) >= at_least
        for before, after in zip(self.noise, self.noise[1:], strict=False):
            assert not torch.equal(before, after)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_300_steps_under_collector_replay_and_updater(kind):
    network, loss, policy = build()
    # Six copies: the value of the end needs four to reach the beginning.
    updater = SoftUpdate(loss, tau=0.05) if kind == "soft" else HardUpdate(loss, value_network_update_interval=50)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    buffer, watch = replay(), Watch(loss)
    first_target = loss.target_value_network.head.layers[0].weight_mu.clone()
    initial, values = None, []
    for batch in collector(policy, 300 * 2 * NUM_ENVS):
        buffer.extend(batch.exclude("action_value", "chosen_action_value").reshape(-1))
        network.body.normalizer.update(batch["observation"])
        sample = buffer.sample()
        value = loss(sample)["loss"]
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
        watch()
        values.append(value.item())
        assert sample["td_error"].shape == (32,)
        initial = sample if initial is None else initial
    watch.assert_always_new(at_least=300)
    assert_sound(loss)
    assert torch.tensor(values).isfinite().all()
    assert not torch.equal(loss.target_value_network.head.layers[0].weight_mu, first_target)
    with policy.greedy():  # it has learned to walk right
        assert policy.act(torch.eye(LENGTH)[:-1]).tolist() == [1] * (LENGTH - 1)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own defaults, torchrl 0.14.1
def test_torchrls_trainer_runs_the_loss_unchanged():
    network, loss, policy = build()
    watch = Watch(loss)
    updater = SoftUpdate(loss, tau=0.05)
    before = [parameter.clone() for parameter in loss.parameters()]
    target_before = [parameter.clone() for parameter in loss.target_value_network.parameters()]
    trainer = Trainer(
        collector=collector(policy, 400),
        total_frames=400,
        frame_skip=1,
        optim_steps_per_batch=2,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-3),
        progress_bar=False,
    )
    buffer = replay()
    ReplayBufferTrainer(buffer, batch_size=32, flatten_tensordicts=True).register(trainer)
    trainer.register_op("batch_process", lambda batch: network.body.normalizer.update(batch["observation"]))
    trainer.register_op("post_optim", updater.step)
    trainer.register_op("post_optim", watch)
    trainer.train()
    assert len(buffer) == 400
    watch.assert_always_new(at_least=100)
    assert_sound(loss)
    assert all(not torch.equal(*pair) for pair in zip(before, loss.parameters(), strict=True))
    target_after = loss.target_value_network.parameters()
    assert all(not torch.equal(*pair) for pair in zip(target_before, target_after, strict=True))


def test_a_collector_hands_on_which_actions_were_greedy():
    network = QuantileNetwork(VectorEncoder(LENGTH, hidden_sizes=[8]), 2, hidden_sizes=(8,))
    policy = QuantilePolicy(network, epsilon=0.5, mark_greedy=True)
    batches = list(collector(policy, 40 * NUM_ENVS))
    for batch in batches:
        assert torch.equal(batch["greedy"], batch["action"] == batch["action_value"].argmax(-1))
    greedy = torch.cat([batch["greedy"] for batch in batches])
    assert greedy.any()
    assert not greedy.all()
