"""Runs of untrained policies, and what their exported files compute."""

import gymnasium as gym
import numpy as np
import onnxruntime
import torch
from gymnasium import spaces

from tesserl_actor_critic import ActorCritic
from tesserl_configs import load_config
from tesserl_nn_components import RunningNormalizer, reset_noise
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.running.run_directory import begin_run
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

ACTIONS = {
    "single": spaces.Discrete(4),
    "blocks": spaces.MultiDiscrete([4, 4, 4]),
    "choices": spaces.MultiDiscrete([2, 5, 3]),
    "real": spaces.Box(np.array([-1.0, -0.2], np.float32), np.array([1.0, 0.3], np.float32)),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
}


class Robot(gym.Env):
    """Sees and feels; an action is one of ``ACTIONS``."""

    def __init__(self, actions: str = "blocks") -> None:
        camera, joints = spaces.Box(0, 255, (7, 9, 3), np.uint8), spaces.Box(-1, 1, (6,), np.float32)
        self.observation_space = spaces.Dict({"camera": camera, "joints": joints})
        self.action_space = ACTIONS[actions]


gym.register("tesserl-tests/Robot-v0", Robot)

SENSES = (
    "environment.id=tesserl-tests/Robot-v0",
    "nn.vision={kind: impala, channels: [3, 5], pool_size: 2, spectral_norm: all}",
    "nn.vector={kind: mlp, hidden_sizes: [8], normalization: {kind: running}}",
)


def untrained_run(run_dir, config_file, overrides):
    """Writes the run of an untrained policy, statistics and noise drawn; returns its directory and the policy."""
    config = load_config(config_file, overrides)
    task = Task(config)
    task.layout  # noqa: B018 - opens the task before the seed is set
    torch.manual_seed(1)
    algorithm = task.agent()
    network = algorithm.policy.network
    reset_noise(network)
    for module in network.modules():
        if isinstance(module, RunningNormalizer):
            module.update(3 + 5 * torch.randn(100, *module.mean.shape))
    if isinstance(network, ActorCritic):  # it starts without an opinion
        for parameter in network.policy.parameters():
            parameter.data += torch.randn_like(parameter)
    run_dir.mkdir(exist_ok=True)
    begin_run(run_dir, config)
    Checkpoints(run_dir).save(0, {"networks": algorithm.saved.state_dict(), "optimizer": {}})
    return run_dir, algorithm.policy


def run_file(result, inputs):
    """Outputs of an exported file, by the runtime that its user has."""
    if result["format"] == "pt2":
        return torch.export.load(result["file"]).module()(**inputs)
    session = onnxruntime.InferenceSession(result["file"])
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    names = [output.name for output in session.get_outputs()]
    return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}


def robot_inputs(batch_size):
    torch.manual_seed(batch_size)
    pixels = torch.randint(256, (batch_size, 3, 7, 9), dtype=torch.uint8)
    return {"pixels": pixels, "observation": torch.randn(batch_size, 6)}
