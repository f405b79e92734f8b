"""The on-policy loop compared with slow implementations."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import nn

from tesserl_actor_critic import ActorCritic, PPOLoss
from tesserl_analysis.record import read_metrics
from tesserl_collectors.collector import Collector
from tesserl_collectors.rollout_policy import RolloutPolicy
from tesserl_configs import load_config
from tesserl_environments import ObservationLayout
from tesserl_environments.sync import SyncEnvironments
from tesserl_nn_components import RecurrentBody
from tesserl_ranks.shares import minibatches
from tesserl_trainer import train
from tesserl_training.advantages import Advantages
from tesserl_training.journal import DivergenceError
from tesserl_training.loops.on_policy import OnPolicyLoop

from .conftest import counting_envs

DISCOUNT, GAE_LAMBDA = 0.9, 0.7
LENGTHS = ((2, 4, 1), (3, 5, 1), (40, 2, 2))
MEMORY = {"heads: {hidden_sizes: [11]}": "heads: {hidden_sizes: [11]}\n  memory: {kind: gru, hidden_size: 7}"}


class Identity(nn.Module):
    in_keys, out_features = ["observation"], 2

    def forward(self, observation):
        return observation


def make(mode: AutoresetMode, body=None, critic_body=None, scaler=None) -> tuple[Collector, RolloutPolicy, Advantages]:
    torch.manual_seed(1)
    network = ActorCritic(body or Identity(), action_space=3, critic_body=critic_body)
    with torch.no_grad():
        next(p for name, p in network.value.named_parameters() if name.endswith("bias")).fill_(0.3)
    policy = RolloutPolicy(network, record_values=critic_body is None)
    environments = counting_envs(mode, *LENGTHS)
    layout = ObservationLayout(environments.single_observation_space)
    seeds = [1] * len(LENGTHS)
    collector = Collector(environments, layout, policy.act, seeds=seeds, on_start=policy.start, records=policy.records)
    advantages = Advantages(policy, layout.keys, discount=DISCOUNT, gae_lambda=GAE_LAMBDA, scaler=scaler, chunk=4)
    return collector, policy, advantages


def slow_advantages(rollout, value_of) -> list[list[float]]:
    """Equation by equation, one valid step at a time, from the last to the first."""
    result = []
    for env in range(rollout.shape[0]):
        following, advantages = 0.0, []
        for t in reversed([t for t in range(rollout.shape[1]) if rollout["mask"][env, t]]):
            step = rollout[env, t]
            bootstrap = 0.0 if step["next", "terminated"].item() else value_of(step["next", "observation"])
            delta = step["next", "reward"].item() + DISCOUNT * bootstrap - value_of(step["observation"])
            following = delta + DISCOUNT * GAE_LAMBDA * (0.0 if step["next", "done"].item() else following)
            advantages.append(following)
        result.append(advantages[::-1])
    return result


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("separate", [False, True])
def test_advantages_are_those_of_the_slow_loop_and_bootstrap_final_observations(mode, separate):
    collector, policy, advantages = make(mode, critic_body=Identity() if separate else None)

    def value_of(observation):
        return policy.network.state_value(observation.clone()).item()

    for _ in range(3):
        rollout = collector.collect(9)
        data = advantages(rollout)
        expected = slow_advantages(rollout, value_of)
        mask = rollout["mask"]
        assert data.batch_size == (int(mask.sum()),)
        times, envs = mask.T.nonzero(as_tuple=True)
        seen = [0] * len(LENGTHS)
        for row, env in enumerate(envs.tolist()):
            assert data["advantage"][row].item() == pytest.approx(expected[env][seen[env]], rel=1e-4)
            seen[env] += 1
        torch.testing.assert_close(data["value_target"], data["advantage"] + data["state_value"])
        torch.testing.assert_close(data["observation"], rollout["observation"][envs, times])
        assert torch.equal(data["action"], rollout["action"][envs, times])
        distribution = policy.network.distribution(*policy.network.policy_parameters(data["observation"]))
        torch.testing.assert_close(data["action_log_prob"], distribution.log_prob(data["action"]))


def test_truncated_episodes_are_worth_what_would_have_followed():
    """Treating the cut as an end, as CleanRL does, would give another advantage."""
    collector, policy, advantages = make(AutoresetMode.SAME_STEP)
    rollout = collector.collect(9)
    truncated = (rollout["next", "truncated"] & ~rollout["next", "terminated"]).squeeze(-1)
    assert truncated.any()
    data = advantages(rollout)
    at_cut = truncated.T.flatten()
    ends = rollout["next"].transpose(0, 1)[truncated.T]
    final_value = policy.network.state_value(ends["observation"]).detach()
    torch.testing.assert_close(
        data["value_target"][at_cut], ends["reward"] + DISCOUNT * final_value, rtol=1e-4, atol=1e-4
    )
    assert (final_value.abs() > 0.1).all()


def recurrent_body() -> RecurrentBody:
    return RecurrentBody(Identity(), 6, kind="lstm", num_layers=2)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_memory_sees_in_sequences_what_it_saw_step_by_step(mode):
    collector, policy, advantages = make(mode, body=recurrent_body())
    for _ in range(2):
        data = advantages(collector.collect(9))
        assert data.batch_size == (3, 9)
        *parameters, value = policy.network(*(data[key] for key in policy.network.in_keys))
        torch.testing.assert_close(value, data["state_value"], rtol=1e-4, atol=1e-5)
        log_probs = policy.network.distribution(*parameters).log_prob(data["action"])
        torch.testing.assert_close(log_probs, data["action_log_prob"], rtol=1e-4, atol=1e-5)


def test_a_memory_is_empty_where_an_episode_begins_and_only_there():
    collector, _, advantages = make(AutoresetMode.SAME_STEP, body=recurrent_body())
    first, second = advantages(collector.collect(9)), advantages(collector.collect(9))
    observation, is_init = second["observation"], second["is_init"].squeeze(-1)
    assert torch.equal(is_init, observation[..., 1] == 0)
    assert first["is_init"][:, 0].all()


def test_values_after_a_cut_use_the_memory_of_the_episode_that_was_cut():
    collector, policy, advantages = make(AutoresetMode.SAME_STEP, body=recurrent_body())
    rollout = collector.collect(9)
    data = advantages(rollout)
    env, time = (rollout["next", "truncated"] & ~rollout["next", "terminated"]).squeeze(-1).nonzero()[0].tolist()
    start = max(t for t in range(time + 1) if data["is_init"][env, t])
    observations = torch.cat(
        [rollout["observation"][env, start : time + 1], rollout["next", "observation"][env, [time]]]
    )
    is_init = torch.zeros(1, len(observations), 1, dtype=torch.bool)
    state = policy.network.body.initial_state(1)
    values = policy.network(observations[None], is_init, *state)[-1][0]
    expected = rollout["next", "reward"][env, time] + DISCOUNT * values[-1]
    torch.testing.assert_close(data["value_target"][env, time], expected, rtol=1e-4, atol=1e-4)


def test_minibatches_are_a_partition():
    data = TensorDict({"x": torch.arange(11), "y": torch.arange(11) * 2}, [11])
    parts = list(minibatches(data, 3))
    assert [len(part) for part in parts] == [4, 4, 3]
    assert sorted(torch.cat([part["x"] for part in parts]).tolist()) == list(range(11))
    assert all(torch.equal(part["y"], part["x"] * 2) for part in parts)
    assert any(part["x"].tolist() != sorted(part["x"].tolist()) for part in parts)


# --- the loop ----------------------------------------------------------------------------------------------------


def metrics_of(run_dir) -> dict[str, list[float]]:
    metrics: dict[str, list[float]] = {}
    for _, name, value, _ in read_metrics(run_dir / "metrics.csv"):
        metrics.setdefault(name, []).append(value)
    return metrics


VARIANTS = {
    "shared": {},
    "separate": {"  num_steps: 10": "  shared_body: false\n  num_steps: 10"},
    "memory": MEMORY,
    "statistics": {"hidden_sizes: [5]}": "hidden_sizes: [5], normalization: {kind: running}}"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_first_minibatch_has_ratio_one(write_config, tmp_path, monkeypatch, changes):
    """The acting policy is the one that learning starts from: nothing moves between collecting and the first step."""
    seen = []
    original = OnPolicyLoop._learn

    def spy(loop, batch):
        with torch.no_grad():
            seen.append(loop.learner.loss(batch))
        original(loop, batch)

    monkeypatch.setattr(OnPolicyLoop, "_learn", spy)
    train(load_config(write_config(algorithm="ppo", **changes)), run_dir=tmp_path / "run")
    assert len(seen) == 8
    for losses in seen:
        assert losses["max_ratio"].item() == pytest.approx(1, abs=1e-5)
        assert losses["kl_approx"].item() == pytest.approx(0, abs=1e-6)
        assert losses["clip_fraction"].item() == 0


def test_epochs_end_when_the_policy_has_moved_too_far(write_config, tmp_path):
    changes = {"  num_steps: 10": "  target_kl: 1.0e-9\n  num_steps: 10"}
    updates = {}
    for name, replacements in {"all": {}, "one": changes}.items():
        config = load_config(write_config(algorithm="ppo", **replacements))
        updates[name] = metrics_of(train(config, run_dir=tmp_path / name))["train/updates"][-1]
    assert updates == {"all": 8 * 2 * 3, "one": 8 * 1 * 3}  # rounds x epochs x minibatches


@pytest.mark.parametrize(("option", "computed"), [("", [False, True]), ("  target_kl: 9.0\n", [True, True])])
def test_metrics_are_those_of_the_last_epoch(write_config, tmp_path, monkeypatch, option, computed):
    calls, results = [], PPOLoss.results

    def recording(self, batch):
        found = results(self, batch)
        calls.append((self.log_metrics, found["loss_critic"].item()))
        return found

    monkeypatch.setattr(PPOLoss, "results", recording)
    path = write_config(algorithm="ppo", **{"  num_epochs: 2": f"{option}  num_epochs: 2"})
    metrics = metrics_of(train(load_config(path), run_dir=tmp_path / "run"))
    logged, losses = zip(*calls, strict=True)
    epochs = np.reshape(losses, (-1, 2, 3))  # rounds, epochs, minibatches
    assert list(logged) == [each for each in computed for _ in range(3)] * len(epochs)
    np.testing.assert_allclose(metrics["train/loss_critic"], epochs[:, 1].mean(axis=1), rtol=1e-5)


def test_schedules_reach_the_loss_and_the_record(write_config, tmp_path):
    metrics = metrics_of(train(load_config(write_config(algorithm="ppo")), run_dir=tmp_path / "run"))
    assert metrics["schedule/clip_epsilon"] == pytest.approx(
        [0.3 - 0.001 * min(step, 200) for step in range(30, 241, 30)]
    )
    assert set(metrics) >= {
        "train/loss_objective", "train/loss_critic", "train/loss_entropy", "train/entropy", "train/kl_approx",
        "train/clip_fraction", "train/explained_variance", "train/gradient_norm", "train/return",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile in torch 2.13, about its own parts
@pytest.mark.parametrize("option", ["loss: torchrl", "precision: bfloat16", "compile: true", "dual_clip: 3.0"])
def test_options_of_the_loss_train_and_stay_close(write_config, tmp_path, option):
    plain = metrics_of(train(load_config(write_config(algorithm="ppo")), run_dir=tmp_path / "plain"))
    changes = {"  num_steps: 10": f"  {option}\n  num_steps: 10"}
    metrics = metrics_of(train(load_config(write_config(algorithm="ppo", **changes)), run_dir=tmp_path / "run"))
    for name in ("loss_objective", "loss_critic", "entropy"):
        assert metrics[f"train/{name}"][0] == pytest.approx(plain[f"train/{name}"][0], rel=0.05, abs=0.02), name


def test_a_diverging_run_says_what_to_change(write_config, tmp_path):
    config = load_config(
        write_config(
            algorithm="ppo",
            **{
                "learning_rate: 1.0e-3": "learning_rate: 1.0e+3",
                "[11]}": "[11]}\n  learning_rate_factors: {heads: 1.0e+9}",
            },
        )
    )
    with pytest.raises(DivergenceError, match=r"not finite at step \d+ .* lower optimizer.learning_rate or ppo.max"):
        train(config, run_dir=tmp_path / "run")


@pytest.mark.parametrize("distribution", ["normal", "tanh_normal"])
def test_continuous_actions_reach_the_task_within_their_bounds(write_config, tmp_path, monkeypatch, distribution):
    sent = []
    original = SyncEnvironments.step
    monkeypatch.setattr(
        SyncEnvironments, "step", lambda self, actions: (sent.append(actions), original(self, actions))[1]
    )
    changes = {"  num_steps: 10": f"  distribution: {{kind: {distribution}, initial_scale: 3.0}}\n  num_steps: 10"}
    train(load_config(write_config("Pendulum-v1", "ppo", **changes)), run_dir=tmp_path / "run")
    assert all(np.abs(actions).max() <= 2.0 for actions in sent)
