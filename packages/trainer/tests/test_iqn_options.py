"""Effects of ``btr:`` and the rarer options of ``iqn:`` on networks, updates and resumed runs."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import nn

from tesserl_analysis.record import read_metrics
from tesserl_configs import ConfigError, RunConfig, load_config
from tesserl_configs.environment import EnvironmentConfig
from tesserl_environments import EnvironmentArgumentError, ObservationLayout
from tesserl_environments.wrappers import Clock
from tesserl_iqn.updates import last_layers
from tesserl_nn_components import NoisyLinear, SpectralConv2d
from tesserl_trainer import build_network, train
from tesserl_trainer.algorithms import iqn
from tesserl_trainer.algorithms.optimizers import build_optimizer, learning_rate_schedule
from tesserl_trainer.algorithms.task import Task
from tesserl_training.cuda_graph import GraphedLearner
from tesserl_training.learner import Learner

from .test_resume import halves_equal_the_whole, outcome

MINATAR = spaces.Box(0, 255, (4, 10, 10), "uint8")
SWITCHES = {
    "munchausen": {nn.Conv2d},
    "impala": {nn.Conv2d, nn.MaxPool2d},
    "max_pool": {nn.Conv2d, nn.AdaptiveMaxPool2d},
    "spectral_norm": {SpectralConv2d},
    "noisy": {nn.Conv2d, NoisyLinear},
    "layer_norm": {nn.Conv2d, nn.LayerNorm},
    "dueling": {nn.Conv2d},
    "prioritized": {nn.Conv2d},
    "n_step": {nn.Conv2d},
    "vector_environments": {nn.Conv2d},
    "all": {nn.Conv2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, SpectralConv2d, NoisyLinear},
}


def breakout(btr=None, **changes):
    return RunConfig(
        total_steps=500_000,
        environment={"id": "MinAtar/Breakout-v1"},
        nn={"heads": {"hidden_sizes": [6]}, **changes.pop("nn", {})},
        algorithm="iqn",
        btr=btr,
        replay={"warmup_steps": 5_000},
        **changes,
    )


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_builds_its_layers_on_images_of_10_x_10(switch):
    network = build_network(breakout({switch: True}), MINATAR, spaces.Discrete(3))
    known = (nn.Conv2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, SpectralConv2d, NoisyLinear, nn.LayerNorm)
    assert {type(module) for module in network.modules() if type(module) in known} == SWITCHES[switch]
    pixels = torch.randint(256, (5, 4, 10, 10), dtype=torch.uint8)
    assert network(pixels, taus=torch.rand(5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"kind": "impala", "pool_size": 6}, "expected at most 2, as the map behind 3 stages is 2 x 2 here, got 6"),
        (
            {"kind": "cnn", "channels": [5], "kernel_sizes": [3], "strides": [1], "pool_size": 9},
            "pool_size must be at most 8, as the map is 8 x 8, got 9",
        ),
    ],
)
def test_a_pool_larger_than_the_map_is_refused_with_the_sizes(vision, message):
    with pytest.raises(ConfigError, match=f"nn.vision.*: {message}"):
        build_network(breakout({}, nn={"vision": vision}), MINATAR, spaces.Discrete(3))


OPTIONS = {
    "everything": {
        "btr": {"all": True, "impala": False, "layer_norm": True},
        "iqn": "{random_crop: 1, reset: {interval: 20}, self_loss_clamp_ratio: 4, exploration: {per_block: false}}",
    },
    "fixed-bfloat16": {"btr": {"dueling": True}, "iqn": "{num_fixed_quantiles: 5, precision: bfloat16}"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_interrupting_changes_nothing(tmp_path, name):
    file = tmp_path / "x.yaml"
    options = OPTIONS[name]
    file.write_text(
        f"""\
name: tiny
total_steps: 120
environment: {{id: MinAtar/Breakout-v1, num_envs: 3}}
nn:
  vision: {{kind: cnn, channels: [5], kernel_sizes: [3], strides: [1]}}
  heads: {{hidden_sizes: [11]}}
algorithm: iqn
btr: {str(options["btr"]).replace("'", "").replace("True", "true").replace("False", "false")}
iqn: {options["iqn"]}
replay: {{capacity: 90, warmup_steps: 30}}
evaluation: {{interval: 60, episodes: 1, final_episodes: 1, num_envs: 1, max_episode_steps: 20}}
checkpoint: {{interval: 60}}
logging: {{interval: 30, tensorboard: false}}
"""
    )
    result = halves_equal_the_whole(load_config(file, ["iqn.batch_size=9", "iqn.update_interval=3"]), tmp_path, 60)
    assert result["step"] == 120


def test_interrupting_changes_nothing_with_a_fixed_horizon(write_config, tmp_path):
    overrides = [
        "environment.wrappers=[{kind: clock}]",
        "iqn.fixed_horizon={steps: 9, start_fraction: 0.2}",
        "iqn.discount=1",
        "total_steps=120",
    ]
    config = load_config(write_config("CartPole-v1"), overrides)
    halves_equal_the_whole(config, tmp_path, 60)


def test_batches_of_a_test_have_clocks_too_and_change_nothing(write_config, tmp_path, monkeypatch):
    overrides = [
        "environment.wrappers=[{kind: clock}]",
        "iqn.fixed_horizon={steps: 9, start_fraction: 0.2}",
        "replay.test_fraction=0.3",
        "total_steps=120",
    ]
    results, seen, evaluate = [], [], Learner.evaluate

    def watch(self, batch, *arguments):
        metrics = evaluate(self, batch, *arguments)
        seen.append(batch)
        return metrics

    monkeypatch.setattr(Learner, "evaluate", watch)
    for number, interval in enumerate((30, 120)):
        config = load_config(write_config("CartPole-v1"), [*overrides, f"logging.interval={interval}"])
        results.append(outcome(train(config, run_dir=tmp_path / str(number)))["files"]["networks.safetensors"])
    assert results[0] == results[1]
    assert len(seen) == 4 + 1
    clock, later = (
        torch.cat([batch[key][:, 0] for batch in seen]) * 9 for key in ("observation", ("next", "observation"))
    )
    assert clock.unique().numel() > 5
    assert torch.equal(clock, clock.round())
    steps = torch.cat([batch["steps_to_next_obs"][:, 0] for batch in seen])
    terminated = torch.cat([batch["next", "terminated"][:, 0] for batch in seen])
    torch.testing.assert_close(later, clock + steps)
    assert terminated[later.round() == 9].all()  # the horizon ends there


def test_a_clock_is_the_first_feature_and_0_where_actions_are_chosen():
    class Both(gym.Env):
        observation_space = spaces.Dict({"a": spaces.Box(1, 2, (2,)), "pixels": spaces.Box(0, 255, (5, 5, 3), "uint8")})
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return {"a": np.ones(2, np.float32), "pixels": np.full((5, 5, 3), 7, np.uint8)}, {}

    for environment, rest in ((Both(), [1, 1]), (gym.make("CartPole-v1"), None)):
        wrapped = Clock(environment)
        layout = ObservationLayout(wrapped.observation_space)
        seen, _ = wrapped.reset(seed=0)
        out = layout.empty(1)
        layout.write({name: part[None] for name, part in seen.items()}, out)
        assert out["observation"].shape == (1, 3 if rest else 5)
        assert out["observation"][0, 0] == 0
        assert out["observation"][0, 1:].tolist() == (rest or seen["observation"].tolist())
    message = "^wrappers: clock is the first feature, before the key '0_clock'; rename that key"
    with pytest.raises(EnvironmentArgumentError, match=message):
        Clock(wrapped)


def algorithm_of(config):
    torch.manual_seed(0)
    return Task(config, (MINATAR, spaces.Discrete(3))).agent()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (2, 6, 4, 10, 10), dtype=torch.uint8, generator=generator)
    following = {"pixels": pixels[1], "reward": torch.ones(6, 1), "terminated": torch.zeros(6, 1, dtype=torch.bool)}
    return TensorDict({"pixels": pixels[0], "action": torch.zeros(6, dtype=torch.int64), "next": following}, [6])


def test_a_reset_moves_both_networks_towards_new_weights_when_it_is_due(monkeypatch):
    config = breakout({}, iqn={"reset": {"interval": 3, "factor": 0.5, "last_layer_factor": 1}})
    made = []

    build = iqn.build_network

    def fresh(task):
        made.append(build(task))
        return made[-1]

    algorithm = algorithm_of(config)
    monkeypatch.setattr(iqn, "build_network", fresh)
    loss = algorithm.loss
    for updates in (1, 2):
        algorithm.updated(updates)
    assert not made
    before = copy.deepcopy(loss.value_network.state_dict())
    algorithm.updated(3)
    [new] = made
    last = tuple(last_layers(new))
    for name, parameter in loss.value_network.named_parameters():
        factor = 1 if name.startswith(last) else 0.5
        torch.testing.assert_close(parameter.data, torch.lerp(before[name], new.get_parameter(name).data, factor))
    target = loss.target_value_network.state_dict()
    torch.testing.assert_close(target["embedding.weight"], loss.value_network.embedding.weight.data)


def test_bfloat16_runs_the_update_in_bfloat16_and_keeps_the_weights():
    losses = []
    for precision in ("float32", "bfloat16"):
        algorithm = algorithm_of(breakout({}, iqn={"precision": precision}))
        torch.manual_seed(1)
        drawn = batch()
        loss = algorithm.forward(drawn)["loss"]
        loss.backward()
        losses.append(loss.item())
        assert {parameter.dtype for parameter in algorithm.parameters} == {torch.float32}
        assert drawn["td_error"].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_learning_rates_of_a_graph_stay_where_they_are():
    weight = nn.Parameter(torch.zeros(2))
    config = breakout({}, optimizer={"kind": "adam", "learning_rate": 0.5}).optimizer
    optimizer = build_optimizer(config, [{"params": [weight], "lr": 0.5, "factor": 0.1}], capturable=True)
    [group] = optimizer.param_groups
    rate = group["lr"]
    learning_rate_schedule(config, optimizer).apply(0.2)
    assert group["lr"] is rate
    assert rate.item() == pytest.approx(0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_repeats_the_update_of_the_plain_learner():
    results = []
    for kind in (Learner, GraphedLearner):
        graphed = kind is GraphedLearner
        algorithm = algorithm_of(breakout({}, device="cuda", iqn={"cuda_graph": graphed, "tau_sampling": "stratified"}))
        learner = kind(algorithm.loss, algorithm.forward, algorithm.parameters, algorithm.optimizer, 10.0)
        for update in range(8):
            drawn = batch(update).to("cuda")
            metrics = learner.update(drawn, update, lambda _: None)
            assert drawn["td_error"].isfinite().all()
        results.append((metrics["loss"].item(), algorithm.parameters[0].detach().abs().mean().item()))
    assert results[1] == pytest.approx(results[0], rel=0.2)  # other draws of fractions


@pytest.mark.parametrize(
    ("environment", "frames"),
    [
        ({"id": "ALE/Pong-v5", "vectorization": "atari", "atari": {"frameskip": 3}}, 3),
        ({"id": "X-v0", "wrappers": [{"kind": "frame_skip", "num_frames": 4}, {"kind": "grayscale"}]}, 4),
        ({"id": "X-v0"}, 1),
    ],
)
def test_frames_of_a_step_are_those_of_frame_skip(environment, frames):
    assert EnvironmentConfig(**environment).frames_per_step == frames


def test_frames_are_logged_beside_steps(write_config, tmp_path):
    overrides = ["environment.wrappers=[{kind: frame_skip, num_frames: 2}]", "total_steps=60"]
    run_dir = train(load_config(write_config("CartPole-v1"), overrides), run_dir=tmp_path / "run")
    frames = [
        (step, value) for step, name, value, *_ in read_metrics(run_dir / "metrics.csv") if name == "train/frames"
    ]
    assert frames == [(30, 60), (60, 120)]


def test_radam_decays_weights_apart_from_the_gradient():
    """Without a gradient a weight shrinks by 1 - rate * decay, and its moments stay 0."""
    config = load_optimizer(kind="radam", learning_rate=0.1, weight_decay=0.5)
    weight = nn.Parameter(torch.tensor([2.0, -4.0]))
    optimizer = build_optimizer(config, [{"params": [weight], "lr": 0.1}])
    for _ in range(2):
        weight.grad = torch.zeros(2)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([2.0, -4.0]) * 0.95**2)
    assert optimizer.state[weight]["exp_avg"].abs().sum() == 0


def load_optimizer(**block):
    return breakout({}, optimizer=block).optimizer
