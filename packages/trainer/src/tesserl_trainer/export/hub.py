"""``tesserl push``, ``tesserl pull``: copy a run to or from the Hugging Face hub; safetensors, JSON, CSV, YAML only."""

import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tesserl_analysis import run_files
from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.document import render
from tesserl_storage.sealed_json import read_sealed
from tesserl_storage.whole_files import partial_name
from tesserl_trainer.machine import pretrained_parts
from tesserl_trainer.running.run_directory import run_config
from tesserl_trainer.usage import command_line
from tesserl_training.checkpoints.checkpoint import read_manifest, verify
from tesserl_training.checkpoints.run_checkpoints import Checkpoints

CARD = "README.md"
FILES = (
    *(run_files.IDENTITY, run_files.CONFIG, run_files.EVALUATION),
    *(run_files.METRICS, run_files.CURVE, run_files.REPORT),
)
PATTERNS = [
    CARD, *FILES, "videos/*.mp4", "checkpoints/*.json", "checkpoints/step_*/*.json", "checkpoints/step_*/*.safetensors"
]  # fmt: skip
"""Patterns of the files that are pulled from a repository."""


class HubError(RuntimeError):
    """The hub refused the request or could not be reached."""


def push(run_dir: Path, repo: str, *, public: bool = False) -> str:
    """Upload a run: its configuration, results, films, and its best and latest checkpoints, without the replay.

    Args:
        run_dir: directory of the run.
        repo: ``owner/name``; created if it does not exist.
        public: make a new repository public.

    Returns:
        The address of the commit.

    Raises:
        StorageError: the run does not exist, or a file is damaged; nothing is uploaded.
        HubError: the hub refuses or cannot be reached.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    hub, config = _hub(), run_config(run_dir)
    files = [*_files(run_dir), *_checkpoint_files(run_dir)]
    operations = [hub.CommitOperationAdd(str(path.relative_to(run_dir)), path) for path in files]
    operations.append(hub.CommitOperationAdd(CARD, card(run_dir, config, repo).encode()))
    with _errors_of(repo):
        api = hub.HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.create_commit(repo, operations, commit_message=f"Upload {config.name}")
    return str(commit.commit_url)


def pull(repo: str, directory: Path, *, revision: str | None = None, trust_code: bool = False) -> Path:
    """Download a run and verify all its files; leave nothing behind on failure.

    Args:
        repo: ``owner/name``.
        directory: directory for the run; it must not exist.
        revision: branch, tag or commit; None: the main branch.
        trust_code: accept a run whose configuration names code.

    Returns:
        ``directory``; `eval`, `watch`, `export` and ``initial_weights`` accept it.

    Raises:
        StorageError: the repository holds no run, or a file is damaged.
        ConfigError: the directory exists, or the configuration names code that is not trusted.
        HubError: the hub refuses or cannot be reached.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    hub = _hub()
    if directory.exists():
        raise ConfigError(f"{directory} exists, a run is not overwritten; name another directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(directory)
    try:
        with _errors_of(repo):
            hub.snapshot_download(repo, revision=revision, local_dir=partial, allow_patterns=PATTERNS)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # left by the download
        code = named_code(run_config(partial))
        if code and not trust_code:
            raise ConfigError(
                f"{repo} names code that its commands would run: {', '.join(code)}; read it, then repeat with "
                "--trust-code"
            )
        _checkpoint_files(partial)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def named_code(config: RunConfig) -> list[str]:
    """Return the modules, and the models that bring code, named in a configuration."""
    body = [] if config.nn.body is None else [config.nn.body.partition(":")[0]]
    models = [block.model for block in pretrained_parts(config).values() if block.trust_remote_code]
    return list(dict.fromkeys([*config.environment.modules, *body, *models]))


def card(run_dir: Path, config: RunConfig, repo: str) -> str:
    """Return the model card of a run: metadata for the hub, results, and commands that use the run."""
    task = config.environment.id
    data: dict[str, Any] = {
        "library_name": "tesserl",
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", "tesserl", config.algorithm, task],
    }
    said = "Not evaluated yet."
    if (run_dir / run_files.EVALUATION).is_file():
        result = read_sealed(run_dir / run_files.EVALUATION)
        value = f"{result['return_mean']:.1f} +/- {result['return_std']:.1f}"
        metric = {"type": "mean_reward", "name": "mean_reward", "value": value}
        kind = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        found = {"task": kind, "dataset": {"name": task, "type": task}, "metrics": [metric]}
        data["model-index"] = [{"name": config.name, "results": [found]}]
        said = f"Return {value} over {result['episodes']} episodes ({result['checkpoint']})."
    commands = (("pull", repo, config.name), ("eval", config.name), ("watch", config.name))
    lines = "\n".join(f"    {command_line('tesserl', *command)}" for command in commands)
    return (
        f"---\n{render(data)}---\n\n# {config.name}\n\n{config.algorithm} on `{task}`, seed {config.seed}, trained by "
        f"Tesserl. {said}\n\n{lines}\n"
    )


def _files(run_dir: Path) -> Iterator[Path]:
    yield from (run_dir / name for name in FILES if (run_dir / name).is_file())
    yield from sorted((run_dir / run_files.VIDEOS).glob("*.mp4"))


def _checkpoint_files(run_dir: Path) -> list[Path]:
    """Verify the best and the latest checkpoint; return their files, with ``best.json`` and ``latest.json``."""
    checkpoints = Checkpoints(run_dir)
    chosen = dict.fromkeys([checkpoints.find("latest"), *([best] if (best := checkpoints.best()) else [])])
    found = [path for name in (run_files.BEST, run_files.LATEST) if (path := checkpoints.directory / name).is_file()]
    for path in chosen:
        manifest = read_manifest(path, checkpoints.identity)
        verify(path, manifest["files"])
        found += [path / name for name in (*manifest["files"], run_files.MANIFEST)]
    return found


def _hub() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'sharing runs needs huggingface_hub, which is not installed; install "tesserl-trainer[hub]"'
        ) from error


@contextmanager
def _errors_of(repo: str) -> Iterator[None]:
    """Turn errors of the hub, its library and the network into a `HubError` of one sentence."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise HubError(
            f"{repo}: {first}; check the name, the connection, and who is logged in (hf auth login)"
        ) from error
