"""PQN, which a package of its own adds: training, exact resume, targets, export, and every body."""

import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from torch import nn

from tesserl_collectors.collector import Collector
from tesserl_configs import ConfigError, dump_config, load_config
from tesserl_configs.schema import config_class
from tesserl_environments import ObservationLayout
from tesserl_pqn import PQNLoss, QLambdaTargets, QNetwork
from tesserl_pqn.build import Batches, Policy
from tesserl_trainer import train
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.export.export import export
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

from .conftest import CONFIG, TASKS, THREADS, counting_envs
from .exported import ACTIONS, SENSES, robot_inputs, run_file, untrained_run
from .test_learning import learned
from .test_network_matrix import BATCH, DISTINCT, FEATURES, PICTURE, VECTOR, options  # noqa: F401 - a fixture
from .test_resume import halves_equal_the_whole

PQN = """
algorithm: pqn
pqn:
  num_steps: 10
  num_epochs: 2
  num_minibatches: 3
  require_layer_norm: false
  epsilon: {kind: linear, knots: [[0, 1.0], [200, 0.1]]}
"""
QUANTILES = ["pqn.num_quantiles=7", "pqn.evaluation_epsilon=0.5", "nn.heads={hidden_sizes: [11], dueling: true}"]
RUNNING = ["nn.vector={kind: mlp, hidden_sizes: [5], layer_norm: true, normalization: {kind: running}}"]


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a tiny configuration of PQN for a task."""

    def write(environment="CartPole-v1"):
        vision, vector = TASKS[environment]
        text = CONFIG.replace("ENV", environment).replace("VISION", vision).replace("VECTOR", vector) + PQN
        path = tmp_path / "tiny.yaml"
        path.write_text(text + f"num_threads: {THREADS}\n")
        return path

    return write


@pytest.mark.parametrize(
    ("environment", "changes"),
    [
        ("CartPole-v1", []),
        ("CartPole-v1", [*QUANTILES, *RUNNING]),
        ("LunarLander-v3", ["environment.vectorization=async", "optimizer={kind: radam}"]),
        ("MinAtar/Breakout-v1", [*QUANTILES, "nn.vision.layer_norm=true"]),
    ],
)
def test_n_steps_and_n_steps_are_two_n_steps(file, tmp_path, environment, changes):
    whole = halves_equal_the_whole(load_config(file(environment), changes), tmp_path, half=120)
    assert whole["step"] == 240
    assert {row[1] for row in whole["metrics"]} >= {"train/loss", "train/td_error", "schedule/epsilon"}


class Body(nn.Module):
    in_keys, out_features = ["observation"], 2

    def forward(self, observation):
        return observation


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("num_quantiles", [None, 4])
def test_recorded_values_give_the_targets_of_the_valid_steps(mode, num_quantiles):
    torch.manual_seed(1)
    network = QNetwork(Body(), 3, num_quantiles=num_quantiles)
    policy = Policy(network, epsilon=0.5, record=True)
    environments = counting_envs(mode, (3, 5), (4, 1), (7, 2))
    layout = ObservationLayout(environments.single_observation_space)
    collector = Collector(environments, layout, policy.act, seeds=[1, 1, 1])
    targets = QLambdaTargets(network, discount=0.9, lambda_=0.7)
    batches = Batches(policy, targets, ["observation"], "cpu")
    for _ in range(3):
        rollout = collector.collect(11).clone()
        batch = batches(rollout)
        mask = rollout["mask"].transpose(0, 1)
        expected = targets(rollout)["value_target"].transpose(0, 1)[mask]
        torch.testing.assert_close(batch["value_target"], expected)
        torch.testing.assert_close(batch["observation"], rollout["observation"].transpose(0, 1)[mask])
    assert bool(mask.all()) == (mode is not AutoresetMode.NEXT_STEP)


def test_evaluation_draws_the_same_actions_each_time(file, tmp_path):
    config = load_config(file(), ["pqn.evaluation_epsilon=0.5", "optimizer.learning_rate=1e-12"])
    run_dir = train(config, run_dir=tmp_path / "run")
    rows = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    assert len({row[2] for row in rows if row[1] == "evaluation/return"}) == 1


def test_a_frozen_part_stays_and_the_loaded_networks_act(file, tmp_path):
    config = load_config(file(), ["nn.freeze=[vector]"])
    torch.manual_seed(config.seed)
    run_dir = train(config, run_dir=tmp_path / "run")
    agent = Task(config).agent()
    weights = Checkpoints(run_dir).load_weights("latest")
    agent.load_networks(weights.networks, weights.path)
    assert [name for name, p in agent.saved.named_parameters() if not p.requires_grad] == [
        name for name, _ in agent.saved.named_parameters() if name.startswith("body.vector")
    ]
    with agent.policy.greedy() as greedy:
        assert greedy.act(torch.zeros(2, 4)).shape == (2,)


@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
@pytest.mark.parametrize("changes", [[], ["pqn.num_quantiles=5", "nn.heads={dueling: true}"]])
def test_the_exported_file_computes_the_greedy_policy(file, tmp_path, monkeypatch, file_format, changes):
    monkeypatch.setitem(ACTIONS, "blocks", spaces.Discrete(4))
    run_dir, policy = untrained_run(tmp_path / "run", file(), [*SENSES, *changes])
    result = export(run_dir, format=file_format, checkpoint="latest")
    assert list(result["outputs"]) == ["action_value", "action", *["quantile_values"] * bool(changes)]
    for batch_size in (1, 4):
        inputs = robot_inputs(batch_size)
        outputs = run_file(result, inputs)
        with torch.no_grad(), policy.greedy() as greedy:
            expected = policy.network.expectation(policy.network(*inputs.values()))
            torch.testing.assert_close(outputs["action_value"], expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(outputs["action"], greedy.act(*inputs.values()))


BODIES = [cell for cell in DISTINCT if cell.family == "quantile" and cell.streams == ("mlp", "mlp")]


@pytest.mark.parametrize("number", range(len(BODIES)), ids=lambda number: f"{BODIES[number].fusion}-{number}")
def test_it_learns_on_every_body(options, number):  # noqa: F811 - the fixture
    cell, num_quantiles = BODIES[number], (None, 3)[number % 2]
    data = {
        "total_steps": 1_000,
        "environment": {"id": "none", "num_envs": 2},
        "algorithm": "pqn",
        "pqn": {"require_layer_norm": False, "num_quantiles": num_quantiles},
        "nn": cell.block(options),
    }
    observations = VECTOR if cell.vision == "none" else spaces.Dict(image=PICTURE, vector=VECTOR)
    task = Task(config_class(data)(**data), (observations, spaces.Discrete(3)))
    network = task.network()
    assert isinstance(network, QNetwork)
    inputs = {"observation": torch.randn(BATCH, FEATURES)}
    if cell.vision != "none":
        inputs["pixels"] = torch.randint(256, (BATCH, 2, 8, 12), dtype=torch.uint8)
    batch = {**inputs, "action": torch.arange(BATCH) % 3, "value_target": torch.randn(BATCH, num_quantiles or 1)}
    PQNLoss(network)(TensorDict(batch, [BATCH]))["loss"].backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.kernel_free
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nn.memory={kind: gru}", "nn.memory.kind: pqn learns from steps without the state before them, got gru"),
        ("nn.heads={noisy: true}", "nn.heads.noisy: pqn explores by pqn.epsilon"),
        ("nn.heads={policy: {kind: mlp}}", "nn.heads.policy: pqn has no policy"),
        ("nn.freeze=[embedding]", "this network has no part embedding"),
        ("pqn.num_minibatches=7", r"pqn.num_minibatches: expected a divisor of .* = 30, got 7"),
        ("total_steps=10", r"total_steps: expected at least .* = 30, got 10"),
        ("pqn.kappa=0.5", "pqn.kappa: belongs to pqn.num_quantiles"),
        ("pqn.require_layer_norm=true", "nn.vector.layer_norm: pqn has no target network and relies on LayerNorm"),
        ("pqn.lambda=0.5", "pqn.lambda: unknown key"),
        ("replay={kind: uniform}", "replay: belongs to algorithm iqn"),
    ],
)
def test_what_does_not_fit_is_refused_at_load(file, change, message):
    with pytest.raises(ConfigError, match=message):
        load_config(file(), [change])


@pytest.mark.kernel_free
def test_other_actions_are_refused_with_the_remedy(file):
    config = load_config(file(), ["environment.id=tesserl-tests/Robot-v0", *SENSES[1:]])
    with pytest.raises(ConfigError, match=r"pqn needs one Discrete action, got MultiDiscrete.* use iqn"):
        Task(config).network()


@pytest.mark.kernel_free
def test_defaults_are_those_of_the_paper_and_survive_their_file(file, tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(
        "total_steps: 20_000\nenvironment: {id: CartPole-v1, num_envs: 32}\nalgorithm: pqn\n"
        "nn: {vector: {kind: mlp, layer_norm: true}}\n"
    )
    config = load_config(path)
    assert (config.optimizer.kind, config.optimizer.learning_rate) == ("radam", 2.5e-4)
    assert (config.options.q_lambda, config.options.max_grad_norm) == (0.65, 10.0)
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2])
def test_it_balances_the_pole(tmp_path, seed):
    """Two seeds; five are measured by ``nox -s bench -- learning``."""
    result = learned(tmp_path, "pqn/cartpole.yaml", f"seed={seed}")
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
