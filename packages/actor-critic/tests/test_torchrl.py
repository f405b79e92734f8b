"""Network and loss in torchrl's own pipeline: collector, buffer and trainer; and the loss with torchrl's networks."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import (
    Bounded,
    Categorical,
    Composite,
    LazyTensorStorage,
    MultiCategorical,
    SamplerWithoutReplacement,
    TensorDictReplayBuffer,
    Unbounded,
)
from torchrl.envs import Compose, EnvBase, InitTracker, TensorDictPrimer, TransformedEnv
from torchrl.modules import NormalParamExtractor, OneHotCategorical, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE
from torchrl.trainers import ReplayBufferTrainer, Trainer

from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_nn_components import RecurrentBody, VectorEncoder

from .conftest import total

NUM_ENVS, LENGTH, LIMIT = 4, 5, 20
SPECS = {
    "categorical": Categorical(2),
    "blocks": MultiCategorical([2, 2, 2]),
    "multi-discrete": MultiCategorical([2, 3]),
    "normal": Unbounded((3,)),
    "tanh-normal": Bounded(-2.0, 2.0, (3,)),
}


class Corridor(EnvBase):
    """Walk right to the end of a corridor: reward 1 and termination there, truncation after twenty steps.

    The walk is to the right where the (first) number of the action is above one half.
    """

    def __init__(self, spec):
        super().__init__(device="cpu", batch_size=[NUM_ENVS])
        self.observation_spec = Composite(observation=Bounded(0.0, 1.0, (NUM_ENVS, LENGTH)), shape=(NUM_ENVS,))
        self.action_spec = spec.expand(NUM_ENVS, *spec.shape)
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
        first = tensordict["action"].reshape(NUM_ENVS, -1)[:, 0]
        self.position = (self.position + torch.where(first > 0.5, 1, -1)).clamp(0, LENGTH - 1)
        self.age += 1
        terminated = (self.position == LENGTH - 1).unsqueeze(-1)
        truncated = (self.age >= LIMIT).unsqueeze(-1)
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        return TensorDict({"observation": self._observe(), "reward": terminated.float(), **flags}, [NUM_ENVS])

    def _set_seed(self, seed):
        pass


def build(kind):
    body = VectorEncoder(LENGTH, hidden_sizes=[16], activation=nn.Tanh)
    return ActorCritic(
        body,
        action_space=SPECS[kind],
        distribution="tanh_normal" if kind == "tanh-normal" else "normal",
    )


def collector(network, kind, total_frames, steps=32):
    return Collector(
        Corridor(SPECS[kind]),
        network.actor,
        frames_per_batch=steps * NUM_ENVS,
        total_frames=total_frames,
        auto_register_policy_transforms=False,
    )


def add_advantages(network, batch):
    following = batch["next"]
    with torch.no_grad():
        value, next_value = network.state_value(batch["observation"]), network.state_value(following["observation"])
    batch["advantage"], batch["value_target"] = generalized_advantage_estimate(
        following["reward"],
        value,
        next_value,
        following["terminated"],
        following["truncated"],
        discount=0.9,
        gae_lambda=0.95,
    )
    return batch


@pytest.mark.parametrize("kind", SPECS)
def test_collector_and_replay_buffer_feed_the_loss(kind):
    network = build(kind)
    loss = PPOLoss(network.actor, network.critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(32 * NUM_ENVS), sampler=SamplerWithoutReplacement(), batch_size=32
    )
    first = True
    for batch in collector(network, kind, 20 * 32 * NUM_ENVS):
        buffer.extend(add_advantages(network, batch).reshape(-1))
        for _ in range(8):  # two epochs
            result = loss(buffer.sample())
            if first:
                assert result["max_ratio"].item() == pytest.approx(1.0, abs=1e-5)
                first = False
            optimizer.zero_grad()
            total(result).backward()
            optimizer.step()
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    greedy = network.greedy(torch.eye(LENGTH)[:-1]).reshape(LENGTH - 1, -1)[:, 0]  # it has learned to walk right
    assert (greedy > 0.5).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own defaults, torchrl 0.14.1
def test_torchrls_trainer_and_estimator_run_the_loss_unchanged():
    network = build("categorical")
    loss = PPOLoss(network)
    before = [parameter.clone() for parameter in loss.parameters()]
    trainer = Trainer(
        collector=collector(network, "categorical", 512),
        total_frames=512,
        frame_skip=1,
        optim_steps_per_batch=4,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-3),
        progress_bar=False,
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(128), sampler=SamplerWithoutReplacement(), batch_size=32)
    trainer.register_op("batch_process", GAE(gamma=0.9, lmbda=0.95, value_network=loss.critic_network))
    ReplayBufferTrainer(buffer, batch_size=32, flatten_tensordicts=True).register(trainer)
    trainer.train()
    assert all(not torch.equal(*pair) for pair in zip(before, loss.parameters(), strict=True))


def test_torchrls_estimator_computes_our_advantages():
    network = build("categorical")
    (batch,) = collector(network, "categorical", 32 * NUM_ENVS)
    ours = add_advantages(network, batch.clone())
    theirs = GAE(gamma=0.9, lmbda=0.95, value_network=network.critic)(batch)
    for key in ("advantage", "value_target"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)


def test_a_collector_carries_the_state_of_a_memory():
    network = ActorCritic(RecurrentBody(VectorEncoder(LENGTH, hidden_sizes=[9]), 7), action_space=2)
    state = Composite(recurrent=Composite(h=Unbounded((NUM_ENVS, 1, 7)), shape=(NUM_ENVS,)), shape=(NUM_ENVS,))
    transforms = Compose(InitTracker(), TensorDictPrimer(state, default_value=0.0, expand_specs=False))
    env = TransformedEnv(Corridor(SPECS["categorical"]), transforms)
    frames = 2 * 32 * NUM_ENVS
    batches = list(
        Collector(
            env,
            network.actor,
            frames_per_batch=frames // 2,
            total_frames=frames,
            auto_register_policy_transforms=False,
        )
    )
    batch = batches[1]
    assert batch["is_init"].any()
    batch["advantage"], batch["value_target"] = torch.randn(2, NUM_ENVS, 32, 1)
    result = PPOLoss(network)(batch)
    assert result["max_ratio"].item() == pytest.approx(1.0, abs=1e-5)
    assert result["ESS"].item() == pytest.approx(1.0, abs=1e-5)


def torchrl_actor(kind):
    if kind == "one-hot":
        module = TensorDictModule(nn.Linear(LENGTH, 3), in_keys=["observation"], out_keys=["logits"])
        return ProbabilisticActor(
            module, in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True
        )
    head = nn.Sequential(nn.Linear(LENGTH, 4), NormalParamExtractor())
    module = TensorDictModule(head, in_keys=["observation"], out_keys=["loc", "scale"])
    return ProbabilisticActor(
        module,
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -2.0, "high": 2.0},
        return_log_prob=True,
        default_interaction_type="random",
    )


@pytest.mark.filterwarnings("ignore:.*entropy.*:UserWarning")  # ClipPPOLoss says that it estimates one
@pytest.mark.parametrize("kind", ["one-hot", "tanh-normal"])
def test_torchrls_own_networks_give_torchrls_own_loss(kind):
    actor, critic = torchrl_actor(kind), ValueOperator(nn.Linear(LENGTH, 1), in_keys=["observation"])
    batch = TensorDict({"observation": torch.randn(32, LENGTH)}, [32])
    with torch.no_grad():
        critic(actor(batch))
    batch["action_log_prob"] += 0.3 * torch.randn(32)
    batch["advantage"], batch["value_target"] = torch.randn(2, 32, 1)
    ours = PPOLoss(actor, critic, normalize_advantage=False)
    theirs = ClipPPOLoss(actor, critic, critic_coeff=0.25, loss_critic_type="l2")
    results = []
    for loss in (ours, theirs):
        torch.manual_seed(2)  # an entropy without a closed form is estimated from one draw
        results.append(loss(batch))
    for key, value in results[1].items():
        torch.testing.assert_close(results[0][key], value.squeeze(), rtol=1e-4, atol=1e-5)
    total(results[0]).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in ours.parameters())


def test_dimensions_without_a_sum_are_refused():
    head = nn.Sequential(nn.Linear(LENGTH, 4), NormalParamExtractor())
    module = TensorDictModule(head, in_keys=["observation"], out_keys=["loc", "scale"])
    actor = ProbabilisticActor(module, in_keys=["loc", "scale"], distribution_class=torch.distributions.Normal)
    entries = {"observation": (LENGTH,), "action": (2,), "action_log_prob": (), "advantage": (1,), "value_target": (1,)}
    batch = TensorDict({key: torch.zeros(8, *shape) for key, shape in entries.items()}, [8])
    loss = PPOLoss(actor, ValueOperator(nn.Linear(LENGTH, 1), in_keys=["observation"]))
    with pytest.raises(ValueError, match=r"must be those of whole actions, \(8,\), got \(8, 2\) .*Independent"):
        loss(batch)


def test_several_actions_at_once_are_refused():
    class Both:
        dist_sample_keys = ("move", "aim")
        get_dist = in_keys = None

    with pytest.raises(TypeError, match=r"one action, got \('move', 'aim'\); use torchrl's ClipPPOLoss for several"):
        PPOLoss(Both(), ValueOperator(nn.Linear(LENGTH, 1), in_keys=["observation"]))
