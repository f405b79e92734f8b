"""The losses in torchrl's own pipeline: collector, replay buffer and trainer."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.collectors.utils import split_trajectories
from torchrl.data import Bounded, Categorical, Composite, LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase
from torchrl.modules import OneHotCategorical, ProbabilisticActor
from torchrl.trainers import ReplayBufferTrainer, Trainer

from tesserl_preference_data import cut_segments, make_pairs
from tesserl_preference_opt import CPLLoss, PreferenceLoss, evaluate_pairs, precompute_reference_log_probs

NUM_ENVS, LENGTH, LIMIT = 4, 5, 12


class Corridor(EnvBase):
    """Walk to the end of a corridor; every step costs 1, twelve at most. Actions are one-hot."""

    def __init__(self):
        super().__init__(device="cpu", batch_size=[NUM_ENVS])
        self.observation_spec = Composite(observation=Bounded(0.0, 1.0, (NUM_ENVS, LENGTH)), shape=(NUM_ENVS,))
        self.action_spec = Bounded(0, 1, (NUM_ENVS, 2), dtype=torch.int64)
        self.reward_spec = Bounded(-1.0, 0.0, (NUM_ENVS, 1))
        flag = Categorical(2, shape=(NUM_ENVS, 1), dtype=torch.bool)
        self.full_done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(NUM_ENVS,))
        self.position = torch.zeros(NUM_ENVS, dtype=torch.int64)
        self.age = torch.zeros(NUM_ENVS, dtype=torch.int64)

    def _observe(self):
        return nn.functional.one_hot(self.position, LENGTH).float()

    def _reset(self, tensordict=None):
        where = torch.ones(NUM_ENVS, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            where = tensordict["_reset"].squeeze(-1)
        self.position[where] = 0
        self.age[where] = 0
        flags = {name: torch.zeros(NUM_ENVS, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        return TensorDict({"observation": self._observe(), **flags}, [NUM_ENVS])

    def _step(self, tensordict):
        move = 2 * tensordict["action"].argmax(dim=-1) - 1
        self.position = (self.position + move).clamp(0, LENGTH - 1)
        self.age += 1
        terminated = (self.position == LENGTH - 1).unsqueeze(-1)
        truncated = (self.age >= LIMIT).unsqueeze(-1)
        following = {"observation": self._observe(), "reward": -torch.ones(NUM_ENVS, 1)}
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        return TensorDict({**following, **flags}, [NUM_ENVS])

    def _set_seed(self, seed):
        pass


def build_actor():
    torch.manual_seed(1)
    layer = nn.Linear(LENGTH, 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    module = TensorDictModule(layer, ["observation"], ["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True)


def collector(actor, total_frames):
    return Collector(
        Corridor(), actor, frames_per_batch=240, total_frames=total_frames, auto_register_policy_transforms=False
    )


@pytest.fixture(scope="module")
def pairs():
    """Pairs of whole episodes that torchrl's collector has gathered and split."""
    actor = build_actor()
    rows = []
    for batch in collector(actor, 2400):
        split = split_trajectories(batch, done_key="done")
        for row in split:
            episode = row[row["collector", "mask"]]
            rows += [episode] if episode["next", "done"][-1] else []
    pool = cut_segments(rows)
    assert set(pool.keys) == {"observation", "action", "reward"}
    generator = torch.Generator().manual_seed(0)
    made = make_pairs(pool, num_pairs=400, min_margin=2.0, generator=generator)
    return precompute_reference_log_probs(made, actor)


@pytest.mark.parametrize("storage", ["memory", "memmap"])
@pytest.mark.parametrize("kind", ["dpo", "cpl"])
def test_pairs_from_the_collector_train_a_policy_through_the_replay_buffer(storage, kind, pairs, tmp_path):
    actor = build_actor()
    options = {"length_normalize": True}
    loss = PreferenceLoss(actor, beta=2.0, **options) if kind == "dpo" else CPLLoss(actor, alpha=2.0, **options)
    held = LazyTensorStorage(400) if storage == "memory" else LazyMemmapStorage(400, scratch_dir=str(tmp_path))
    buffer = TensorDictReplayBuffer(storage=held, batch_size=64)
    buffer.extend(pairs[:])
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(60):
        loss(buffer.sample())["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    accuracy = evaluate_pairs(loss, pairs.minibatches(100, shuffle=False))["rewards/accuracies"]
    assert accuracy > 0.7  # 0.83 or more with every one of five seeds; 0 before, 0.5 by chance
    logits = actor(TensorDict({"observation": torch.eye(LENGTH)[:-1]}, [LENGTH - 1]))["logits"]
    assert (logits[:, 1] > logits[:, 0]).all()


class Episodes:
    """A stand-in for torchrl's collector: yields batches of pairs."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.requested_frames_per_batch, self.init_random_frames = 100, 0

    def __iter__(self):
        return iter([self.pairs[start : start + 100] for start in range(0, 400, 100)])

    def set_seed(self, seed, static_seed=False):
        return seed

    def shutdown(self):
        pass

    def update_policy_weights_(self, *args, **kwargs):
        pass


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own defaults, torchrl 0.14.1
def test_torchrls_trainer_runs_the_loss_unchanged(pairs):
    actor = build_actor()
    loss = PreferenceLoss(actor, beta=0.5, reference_network="copy", reference_sync_interval=3)
    before = actor.module[0].module.weight.clone()
    trainer = Trainer(
        collector=Episodes(pairs),
        total_frames=400,
        frame_skip=1,
        optim_steps_per_batch=2,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=0.05),
        progress_bar=False,
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(400), batch_size=64)
    ReplayBufferTrainer(buffer, batch_size=64).register(trainer)
    trainer.register_op("post_optim", loss.update_reference)
    trainer.train()
    assert len(buffer) == 400
    updates = int(loss.reference.num_steps)
    assert updates >= 8
    assert not torch.equal(actor.module[0].module.weight, before)
    assert not torch.equal(loss.reference.network.module[0].module.weight, before)
