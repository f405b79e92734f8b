"""``tesserl doctor``: check the installed packages and this machine; print a remedy for each problem."""

import importlib
import importlib.metadata
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

NAME = "tesserl-trainer"
MODULES = {  # distribution -> module, if the names differ or the check needs the module
    "pillow": "PIL",
    "tensorboard": "torch.utils.tensorboard",
    "tesserl-configs": "tesserl_configs.schema",
}
EXTRAS = {  # extra -> (distribution, module)
    "atari": ("ale-py", "ale_py"),
    "box2d": ("box2d", "Box2D"),
    "envpool": ("envpool", "envpool"),
    "hf": ("transformers", "transformers"),
    "highway": ("highway-env", "highway_env"),
    "hub": ("huggingface-hub", "huggingface_hub"),
    "minari": ("minari", "minari"),
    "minatar": ("minatar", "minatar"),
    "minigrid": ("minigrid", "minigrid"),
    "mlflow": ("mlflow-skinny", "mlflow"),
    "mujoco": ("mujoco", "mujoco"),
    "onnx": ("onnxruntime", "onnxruntime"),
    "pqn": ("tesserl-pqn", "tesserl_pqn"),
    "ray": ("ray", "ray"),
    "search": ("optuna", "optuna"),
    "slurm": ("submitit", "submitit"),
    "trackio": ("trackio", "trackio"),
    "video": ("imageio-ffmpeg", "imageio_ffmpeg"),
    "wandb": ("wandb", "wandb"),
}


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    status: str
    """``ok``, ``missing`` (everything else works) or ``broken`` (nothing trains until it is repaired)."""

    detail: str
    remedy: str = ""
    """The command that repairs it."""


class Absent(Exception):  # noqa: N818 - the absence of an optional package is no error
    """A package or device is absent; the message says what does not work without it."""


def examine() -> list[Check]:
    """Run all checks; an error during an import becomes a line of the report."""
    python_ok = sys.version_info >= (3, 10)
    checks = [
        Check("python", "ok" if python_ok else "broken", platform.python_version(), "" if python_ok else "use >= 3.10")
    ]
    checks.append(_package(NAME, "tesserl_trainer", Requirement(NAME)))
    required = _required()
    checks += [
        _package(name, MODULES.get(name, name.replace("-", "_")), requirement) for name, requirement in required.items()
    ]
    checks += [
        _tried(
            "prioritised replay",
            "broken",
            _sample_by_priority,
            f'pip install --force-reinstall "{required["tesserl-replay"]}"',
        ),
        _tried("torchrl C++ extension", "missing", _load_extension, ""),
        _tried("CUDA", "missing", _find_cuda, ""),
        _tried("gloo", "missing", _find_gloo, ""),
        _tried("NCCL", "missing", _find_nccl, ""),
    ]
    for extra, (name, module) in EXTRAS.items():
        requirement = _required(extra).get(name, Requirement(name))
        checks.append(_package(name, module, requirement, extra=extra))
    return checks


def examine_config(path: Path, overrides: Sequence[str] = ()) -> Check:
    """Check that this machine can run a configuration."""
    return _tried(str(path), "broken", lambda: _assemble(path, overrides), "")


def _required(extra: str = "", distribution: str = NAME) -> dict[str, Requirement]:
    """Return the requirements on this platform by distribution, including those of an extra and of sibling extras."""
    lines = [Requirement(line) for line in importlib.metadata.requires(distribution) or []]
    held = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    found = {line.name: line for line in held}
    for line in held:
        for other in line.extras if line.name.startswith("tesserl-") else ():
            found |= _required(other, line.name)
    return found


def _assemble(path: Path, overrides: Sequence[str]) -> str:
    """Build the task and the network of a file on its device, as at the start of a run."""
    from tesserl_configs import ConfigError
    from tesserl_configs.loader import load_with_places
    from tesserl_trainer.algorithms.task import Task
    from tesserl_trainer.machine import refuse_missing

    try:
        loaded = load_with_places(path, overrides)
        config = loaded.config
        refuse_missing(config, placed=loaded.placed)
        network = Task(config).network()
    except ConfigError as error:  # each line is one mistake with its remedy
        raise Absent(str(error)) from error
    size = sum(parameter.numel() for parameter in network.parameters())
    return f"runs here: {config.environment.id}, {size:,} parameters, on {config.device}"


def _package(name: str, module: str, requirement: Requirement, *, extra: str = "") -> Check:
    def version() -> str:
        found = importlib.metadata.version(name)
        importlib.import_module(module)
        if not requirement.specifier.contains(found, prereleases=True):
            raise Absent(f"{found} is installed, {requirement.specifier} is needed")
        return found

    wanted = f"{NAME}[{extra}]" if extra else f"{requirement.name}{requirement.specifier}"
    return _tried(name, "missing" if extra else "broken", version, f'pip install "{wanted}"')


def _tried(name: str, status: str, attempt: Callable[[], str], remedy: str) -> Check:
    """Return ``ok`` with the result of ``attempt``, or ``status`` with its error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Check(name, "ok", attempt())
    except importlib.metadata.PackageNotFoundError:
        return Check(name, status, "not installed", remedy)
    except Absent as absence:
        return Check(name, status, str(absence), remedy)
    except Exception as error:  # noqa: BLE001 - a broken installation raises errors of any type
        lines = str(error).splitlines() or [""]
        said = lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
        return Check(name, status, f"{said:.300}".rstrip(": "), remedy)


def _sample_by_priority() -> str:
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

    from tesserl_replay import PrioritizedSampler

    logging.getLogger("torchrl").setLevel(logging.WARNING)  # torchrl prints a line to stdout for every new storage
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(8), sampler=PrioritizedSampler(8), priority_key="td_error", batch_size=4
    )
    buffer.extend(TensorDict({"value": torch.arange(8), "td_error": torch.ones(8)}, [8]))
    batch = buffer.sample()
    batch["td_error"] = torch.ones(4)
    buffer.update_tensordict_priority(batch)
    return "our own sampler works, with any torch"


def _load_extension() -> str:
    try:
        importlib.import_module("torchrl._torchrl")
    except ImportError as error:
        raise Absent(
            "does not load with this torch; only torchrl's own prioritised sampler needs it, nothing here does"
        ) from error
    return "loads"


def _find_cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise Absent(f"torch {torch.__version__} sees no device; runs with device: cpu work")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names)


def _find_gloo() -> str:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        raise Absent("this torch was built without it; torchrun cannot start several ranks")
    return "joins ranks that torchrun starts, on CPUs"


def _find_nccl() -> str:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_nccl_available()):
        raise Absent("this torch was built without it; several ranks need device: cpu")
    return "joins ranks that torchrun starts, on GPUs"
