"""Groups of trajectories: equal starts, complete trajectories, and what the loop makes of them."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torch import nn

from tesserl_actor_critic import ActorCritic
from tesserl_configs import load_config
from tesserl_environments import GroupStarts, LevelStart, ObservationLayout, RestoredStarts, SeedStart, StateStart
from tesserl_grpo import pad_trajectories
from tesserl_trainer import train
from tesserl_trainer.algorithms.environments import make_environments
from tesserl_trainer.collecting.collector import Collector
from tesserl_trainer.collecting.groups import GroupCollector, expected_rest
from tesserl_trainer.collecting.rollout_policy import RolloutPolicy

from .test_on_policy import metrics_of


class Walk(gym.Env):
    """Observation ``[start, t]``: the start is drawn by the seed; an episode ends with action 1, or after 7 steps."""

    observation_space, action_space = gym.spaces.Box(-1e9, 1e9, (2,)), gym.spaces.Discrete(3)

    def __init__(self, forgets_its_seed: bool = False):
        self.forgets_its_seed = forgets_its_seed
        self.start, self.t = 0, 0

    def _observation(self):
        return np.array([self.start, self.t], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.forgets_its_seed else seed)
        level = (options or {}).get("level")
        self.start, self.t = int(self.np_random.integers(1_000)) if level is None else level, 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        return self._observation(), float(self.t), action == 1, self.t >= 7, {}

    def get_state(self):
        return self.start, self.t

    def set_state(self, state):
        self.start, self.t = state
        return self._observation()


class Identity(nn.Module):
    in_keys, out_features = ["observation"], 2

    def forward(self, observation):
        return observation.clamp(-1, 1)


def make(start, *, num_envs=3, group_size=4, num_starts=None, wrap=lambda env: env, **options) -> GroupCollector:
    torch.manual_seed(1)
    policy = RolloutPolicy(ActorCritic(Identity(), action_space=3), record_values=False)
    environments = SyncVectorEnv(
        [lambda: wrap(Walk(**options)) for _ in range(num_envs)], autoreset_mode=AutoresetMode.DISABLED
    )
    starts = GroupStarts(environments, start, group_size=group_size, num_starts=num_starts)
    layout = ObservationLayout(environments.single_observation_space)
    return GroupCollector(Collector(starts, layout, policy.act), starts, policy, layout.keys, chunk=2)


STARTS = {
    "seed": (SeedStart(5), {}),
    "level": (LevelStart(5, "level"), {"num_starts": 2}),
    "state": (StateStart(5), {"wrap": RestoredStarts, "forgets_its_seed": True}),
}


@pytest.mark.parametrize(("start", "options"), STARTS.values(), ids=STARTS)
def test_every_group_is_complete_and_shares_its_start(start, options):
    collector = make(start, **options)
    for first in (0, 5):
        trajectories, group = collector.collect(5)
        assert group.tolist() == [first + number for number in range(5) for _ in range(4)]
        for trajectory in trajectories:
            steps = len(trajectory)
            assert trajectory["observation"][:, 1].tolist() == list(range(steps))
            assert (trajectory["observation"][:, 0] == trajectory["observation"][0, 0]).all()
            assert trajectory["next", "reward"].squeeze(-1).tolist() == [float(t + 1) for t in range(steps)]
            assert trajectory["next", "done"].squeeze(-1).tolist() == [False] * (steps - 1) + [True]
            assert trajectory["next", "terminated"][-1].item() == (trajectory["action"][-1].item() == 1)
        begun = torch.stack([trajectory["observation"][0] for trajectory in trajectories]).reshape(5, 4, 2)
        assert (begun == begun[:, :1]).all()
    episodes = collector.pop_episodes()
    assert len(episodes) == 2 * 5 * 4
    assert all(episode.episode_return == episode.length * (episode.length + 1) / 2 for episode in episodes)


def test_starts_differ_between_groups_and_return_where_they_are_numbered():
    _, firsts = collect_firsts(make(SeedStart(5)), 6)
    assert len(set(firsts)) == 6
    _, firsts = collect_firsts(make(SeedStart(5), num_starts=2), 6)
    assert firsts == firsts[:2] * 3
    _, firsts = collect_firsts(make(LevelStart(5, "level"), num_starts=3), 6)
    assert firsts == [0, 1, 2, 0, 1, 2]


def collect_firsts(collector, num_groups):
    trajectories, group = collector.collect(num_groups)
    return group, [trajectory["observation"][0, 0].item() for trajectory in trajectories[::4]]


def test_log_probs_are_those_of_the_policy_that_acted():
    collector = make(SeedStart(1))
    trajectories, _ = collector.collect(2)
    for trajectory in trajectories:
        parameters = collector.policy.network.policy_parameters(trajectory["observation"])
        expected = collector.policy.network.distribution(*parameters).log_prob(trajectory["action"])
        torch.testing.assert_close(trajectory["action_log_prob"], expected.detach())


def test_groups_that_do_not_share_their_start_are_refused():
    with pytest.raises(
        ValueError, match=r"must share their first observation: in group 0 that of trajectory 1 .* away"
    ):
        make(SeedStart(5), forgets_its_seed=True).collect(2)


def test_environments_that_reset_themselves_are_refused():
    environments = SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(ValueError, match="expected autoreset mode DISABLED, got SameStep"):
        GroupStarts(environments, SeedStart(1), group_size=2)


def test_a_state_cannot_be_set_in_any_environment():
    with pytest.raises(TypeError, match=r"starts: CartPoleEnv has no state to set; .* choose starts of kind seed"):
        RestoredStarts(gym.make("CartPole-v1"))


def test_atari_games_are_put_back_to_their_start(write_config):
    pytest.importorskip("ale_py")
    text = {"id: CartPole-v1": "id: ALE/Breakout-v5"}
    config = load_config(write_config("CartPole-v1", "grpo", **text))
    environments = make_environments(config.environment, 2, groups=True, restorable=True)
    starts = GroupStarts(environments, StateStart(1), group_size=4)
    starts.begin(1)
    first, _ = starts.reset()
    first = first.copy()
    assert (first[0] == first[1]).all()
    for action in (1, 2, 2, 3, 1):
        moved = environments.step(np.array([action, action]))[0].copy()
    assert (moved[0] != first[0]).any()
    again, _ = starts.reset(options={"reset_mask": np.array([True, True])})
    assert (again == first).all()
    environments.close()


def test_the_rest_of_a_cut_trajectory_is_the_mean_of_those_that_were_longer():
    def trajectory(rewards):
        return TensorDict({"next": {"reward": torch.tensor(rewards).unsqueeze(-1)}}, [len(rewards)])

    rewards = [[1.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 8.0], [5.0], [7.0, 7.0]]
    batch = pad_trajectories([trajectory(item) for item in rewards], [0, 0, 0, 1, 1])
    rest = expected_rest(batch, discount=0.5)
    assert rest.tolist() == [((3 + 0.5 * 4) + 8) / 2, 0.0, 4.0, 7.0, 0.0]


# --- the loop ----------------------------------------------------------------------------------------------------

VARIANTS = {
    "trajectory": {"kind: to_go": "kind: trajectory", "baseline: alive": "baseline: leave_one_out"},
    "gspo": {"loss: {kind: clip}": "loss: {kind: clip, importance_level: trajectory}"},
    "cispo": {"loss: {kind: clip}": "loss: {kind: cispo}"},
    "sapo": {
        "loss: {kind: clip}": "loss: {kind: sapo}\n  off_policy_threshold: 0.1\n  kl: {importance_weighted: true}"
    },
    "reinforce": {"loss: {kind: clip}": "loss: {kind: reinforce}", "num_epochs: 2": "num_epochs: 1"},
    "kl": {"group_size: 4": "group_size: 4\n  kl: {coef: 0.1, reference: {kind: sync, interval: 3}}"},
    "exact": {"group_size: 4": "group_size: 4\n  kl: {coef: 0.1, estimator: exact}"},
    "drop": {"group_size: 4": "group_size: 4\n  zero_variance: {kind: drop}\n  entropy_coef: 0.01"},
    "bootstrap": {"group_size: 4": "group_size: 4\n  truncation: bootstrap\n  max_length: 12"},
    "mask": {"group_size: 4": "group_size: 4\n  truncation: mask\n  max_length: 40"},
    "dr_grpo": {"reduction: dapo": "reduction: dr_grpo\n  max_length: 30"},
    "statistics": {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"},
    "bfloat16": {"group_size: 4": "group_size: 4\n  precision: bfloat16"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_trains(write_config, tmp_path, changes):
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert all(np.isfinite(values).all() for values in metrics.values())
    assert set(metrics) >= {"train/loss_objective", "train/entropy", "train/reward", "train/frac_reward_zero_std"}
    assert metrics["train/completions/max_length"][-1] <= (config.grpo.max_length or 500)


def test_groups_without_a_difference_are_replaced_until_the_attempts_are_used_up(write_config, tmp_path):
    """With trajectories of one step all returns are equal: nothing can be learned, nothing breaks."""
    changes = {"group_size: 4": "group_size: 4\n  max_length: 1\n  zero_variance: {kind: resample, max_attempts: 3}"}
    changes["total_steps: 240"] = "total_steps: 48"
    changes["interval: 30,"] = "interval: 24,"
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/frac_reward_zero_std"] == [1.0, 1.0]
    assert metrics["train/updates"] == [0, 0]
    assert metrics["train/episodes"] == [24, 48]  # 2 groups x 3 attempts x 4 trajectories, twice


def test_zero_variance_is_counted_and_a_full_set_of_groups_is_learned_from(write_config, tmp_path):
    changes = {"group_size: 4": "group_size: 4\n  zero_variance: {kind: resample}"}
    config = load_config(write_config(algorithm="grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/updates"][-1] > 0


@pytest.mark.parametrize("distribution", ["normal", "tanh_normal"])
def test_continuous_actions(write_config, tmp_path, distribution):
    changes = {"group_size: 4": f"group_size: 4\n  max_length: 9\n  distribution: {{kind: {distribution}}}"}
    config = load_config(write_config("Pendulum-v1", "grpo", **changes))
    metrics = metrics_of(train(config, run_dir=tmp_path / "run"))
    assert metrics["train/completions/clipped_ratio"][-1] == 1
