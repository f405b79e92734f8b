"""Find packages, devices and files that a configuration needs and this machine lacks.

Validation of a configuration does not depend on the machine. These checks do; they run before anything is built, and
import or open nothing that the configuration names.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.algorithms import declared
from tesserl_configs.environment import ALE
from tesserl_configs.errors import Problem
from tesserl_configs.initial_weights import weights_source
from tesserl_configs.layers import HFOptions

if TYPE_CHECKING:
    import torch

BOX2D = ("BipedalWalker", "CarRacing", "LunarLander")
"""Prefixes of the ids of Gymnasium's tasks that need Box2D."""

MUJOCO = (
    "Ant-", "HalfCheetah-", "Hopper-", "Humanoid-", "HumanoidStandup-", "InvertedDoublePendulum-", "InvertedPendulum-",
    "Pusher-", "Reacher-", "Swimmer-", "Walker2d-",
)  # fmt: skip
"""Prefixes of the ids of Gymnasium's tasks that need MuJoCo."""


def missing_here(config: RunConfig, *, files: bool = True) -> Iterator[Problem]:
    """Yield a problem for each requirement that this machine lacks; ``files=False`` skips files, for a resume."""
    yield from _missing_packages(config)
    if files:
        yield from _missing_files(config)
    if config.device != "cpu":
        try:
            device_of(config.device)
        except ConfigError as error:
            yield Problem("device", str(error).removeprefix("device: "))


def device_of(name: str) -> torch.device:
    """Return the device with a name."""
    import torch  # slow to import, and checks of a configuration do not need it

    device = torch.device(name)
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise ConfigError(
            f"device: {name} is not there (torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices); "
            "set device to cpu"
        )
    return device


def refuse_missing(config: RunConfig, *, placed: Callable[[Problem], str] = str, files: bool = True) -> None:
    """Refuse a run that this machine cannot train; ``placed`` adds file and line to a problem."""
    if problems := [placed(problem) for problem in missing_here(config, files=files)]:
        raise ConfigError(*problems)


@contextmanager
def naming_memory(config: RunConfig) -> Iterator[None]:
    """Turn an out-of-memory error into one that names the keys which determine memory use."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        lacks = isinstance(error, MemoryError) or any(sign in text for sign in ("allocate memory", "out of memory"))
        if not lacks:
            raise
        keys = ", ".join(("environment.num_envs", "nn", *declared(config.algorithm).memory))
        first = text.splitlines()[0] if text else type(error).__name__
        raise ConfigError(f"the run does not fit into memory ({first}); lower what takes it: {keys}") from error


def _missing_packages(config: RunConfig) -> Iterator[Problem]:
    environment = config.environment
    namespace = environment.id.partition("/")[0] if "/" in environment.id else ""
    needs = {
        ("logging.wandb", "Weights & Biases", "wandb", "wandb"): config.logging.wandb is not False,
        ("logging.mlflow", "MLflow", "mlflow", "mlflow"): config.logging.mlflow is not False,
        ("logging.trackio", "trackio", "trackio", "trackio"): config.logging.trackio is not False,
        ("evaluation.video", "imageio_ffmpeg", "imageio_ffmpeg", "video"): config.evaluation.video is not None,
        ("collectors.kind", "Ray", "ray", "ray"): config.collectors.kind == "ray",
        ("environment.vectorization", "envpool", "envpool", "envpool"): environment.vectorization == "envpool",
        ("environment.id", "ale_py", "ale_py", "atari"): environment.id.startswith(ALE),
        ("environment.id", "MinAtar", "minatar", "minatar"): namespace == "MinAtar",
        ("environment.id", "Box2D", "Box2D", "box2d"): environment.id.startswith(BOX2D),
        ("environment.id", "MuJoCo", "mujoco", "mujoco"): environment.id.startswith(MUJOCO),
        ("environment.imports", "MiniGrid", "minigrid", "minigrid"): "minigrid" in environment.imports,
        ("environment.imports", "highway-env", "highway_env", "highway"): "highway_env" in environment.imports,
    }
    for (key, name, module, extra), needed in needs.items():
        by_envpool = environment.vectorization == "envpool" and key == "environment.id"
        if needed and not by_envpool and importlib.util.find_spec(module) is None:
            yield Problem(key, f'needs {name}, which is not installed; install "tesserl-trainer[{extra}]"')
    if config.logging.tensorboard and importlib.util.find_spec("tensorboard") is None:  # often left out: large
        yield Problem("logging.tensorboard", "needs TensorBoard, which is not installed; install it or set false")


def _missing_files(config: RunConfig) -> Iterator[Problem]:
    weights, source = config.initial_weights, config.pairs.source
    path = None if weights is None else weights_source(weights)[0]
    if path is not None and not _is_run(Path(path)):
        key = "initial_weights" if weights == path else "initial_weights.from"
        yield Problem(key, f"expected a run or a checkpoint of one, there is none at {_place(path)}")
    reads_pairs = "pairs" in declared(config.algorithm).blocks
    path = source.path if reads_pairs and source.kind != "online" else None
    if path is not None and not (Path(path) / "manifest.json").is_file():
        yield Problem("pairs.source.path", f"expected a directory of stored pairs, there is none at {_place(path)}")
    for key, block in pretrained_parts(config).items():
        if block.model.startswith(("/", "./", "../")) and not Path(block.model).is_dir():
            yield Problem(f"{key}.model", f"expected a directory, there is none at {_place(block.model)}")


def pretrained_parts(config: RunConfig) -> dict[str, HFOptions]:
    """Return the blocks that name a Hugging Face model, by key."""
    parts: dict[str, HFOptions] = {}
    if config.nn.vision.kind == "hf":
        parts["nn.vision"] = config.nn.vision
    if config.nn.fusion.kind != "none" and config.nn.fusion.trunk.kind == "hf_embedding":
        parts["nn.fusion.trunk"] = config.nn.fusion.trunk
    return parts


def _is_run(path: Path) -> bool:
    return (path / run_files.MANIFEST).is_file() or any(path.glob("checkpoints/*/manifest.json"))


def _place(path: str) -> str:
    """Return the absolute form of a path; relative ones start from the current directory."""
    return path if Path(path).is_absolute() else f"{path} in {Path.cwd()}"
