"""Configurations with random mistakes: what is refused has a place, and what is accepted trains."""

import multiprocessing
import os
import re
import resource
import signal
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tesserl_configs import ConfigError, dump_config, load_config
from tesserl_configs.introspection import all_keys
from tesserl_trainer.cli import main

from . import mutations
from .conftest import ALGORITHMS, MORE_TASKS, TASKS, config_text

pytestmark = pytest.mark.kernel_free

SEED = os.environ.get("TESSERL_FUZZ_SEED", "1")
FILES = [
    path
    for path in sorted(Path(__file__).parents[3].glob("configs/*/*.yaml"))
    if path.parent.name not in ("search", "sweeps")
]
BLOCKS = [
    config_text(task, algorithm)
    for task in TASKS | MORE_TASKS
    for algorithm in ALGORITHMS
    if (task, algorithm) != ("Pendulum-v1", "iqn")
]
BASES = [path.read_text(encoding="utf-8") for path in FILES] + BLOCKS
KEYS = {f"{block}.{key}".lstrip(".") for block, key in all_keys()}

# --- loading -----------------------------------------------------------------------------------------------------


def fault_of_loading(path: Path, overrides: tuple[str, ...] = ()) -> str | None:
    """Return what is wrong with how a file loads; None for a valid file and for one that is refused as it should be."""
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        places = rf"{re.escape(str(path))}(:\d+)?: \S|--set .*"
        bare = [message for message in error.messages if not re.match(places, message, re.DOTALL)]
        return f"no place: {bare[0]}" if bare or not error.messages else None
    except Exception:  # noqa: BLE001 - the fault that is looked for
        return traceback.format_exc()
    again = path.with_name("again.yaml")
    again.write_text(dump_config(config), encoding="utf-8")
    try:
        return None if load_config(again) == config else "loads, and what is dumped loads to something else"
    except Exception:  # noqa: BLE001
        return f"loads, and what is dumped does not: {traceback.format_exc()}"


def kind_of(fault: str | None) -> str | None:
    """The last line of a fault, without its values."""
    return fault and re.sub(r"[\d'\"].*", "", fault.strip().splitlines()[-1])


@pytest.mark.parametrize("number", [200, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mistakes_are_refused_with_a_place_and_what_loads_is_dumped_and_loads_equally(tmp_path, number):
    path, counts = tmp_path / "x.yaml", Counter()

    def fault_of(content: bytes, overrides: tuple[str, ...] = ()) -> str | None:
        path.write_bytes(content)
        return fault_of_loading(path, overrides)

    for index in range(number):
        seed, overrides = f"{SEED}-{index}", ()
        if index % 5:
            content = mutations.mutant(seed, BASES, mild=index % 5 == 1)
        else:
            text, *overrides = mutations.override(seed, BASES)
            content, overrides = text.encode(), tuple(overrides)
        if fault := fault_of(content, overrides):
            kind = kind_of(fault)
            smaller = mutations.shrunk(content, lambda less: kind_of(fault_of(less, overrides)) == kind)  # noqa: B023
            pytest.fail(f"case {seed}, --set {overrides}: {fault}\n{smaller.decode(errors='replace')}")
        counts["refused" if "again.yaml" not in {each.name for each in tmp_path.iterdir()} else "valid"] += 1
        (tmp_path / "again.yaml").unlink(missing_ok=True)
    print(dict(counts))  # noqa: T201 - shown with -s
    assert min(counts["refused"], counts["valid"]) > number / 20


def test_a_mistake_of_the_loader_would_be_found_and_shrunk(monkeypatch, tmp_path):
    def broken(path, overrides=()):
        if b"hidden" in Path(path).read_bytes():
            raise KeyError("hidden")
        raise ConfigError(f"{path}:1: seed: wrong")

    monkeypatch.setattr(f"{__name__}.load_config", broken)
    content = BLOCKS[0].encode()
    path = tmp_path / "x.yaml"

    def fails(less: bytes) -> bool:
        path.write_bytes(less)
        return kind_of(fault_of_loading(path)) == "KeyError: "

    assert fails(content)
    assert mutations.shrunk(content, fails).count(b"\n") == 1


# --- training ----------------------------------------------------------------------------------------------------

LIMIT, GRACE, MEMORY = 60, 60, 12 * 2**30
"""Seconds of a processor for a training, more of them to stop in, and bytes that it may address."""

IMPORTED = [
    "tesserl_trainer.running.train", *(f"tesserl_trainer.algorithms.{name}" for name in ALGORITHMS),
    "tesserl_trainer.algorithms.initial_weights", "matplotlib.backends.backend_agg", "matplotlib.figure", "ale_py",
    "minatar.gym", "gymnasium.envs.box2d", "gymnasium.envs.classic_control", "torch.utils.tensorboard", "rich.progress",
]  # fmt: skip
"""Modules that a training imports, once for all processes."""

SMALL = {
    "": [
        "total_steps=200", "environment.num_envs=2", "checkpoint={interval: 100}", "logging={tensorboard: false}",
        "evaluation={interval: 100, episodes: 1, final_episodes: 1, num_envs: 1, max_episode_steps: 20}",
        "name=small",
    ],
    "iqn": ["replay.warmup_steps=60", "replay.capacity=200", "iqn.batch_size=8", "iqn.update_interval=8"],
    "ppo": ["ppo.num_steps=16", "ppo.num_minibatches=2", "ppo.num_epochs=1"],
    "grpo": ["grpo.num_groups=1", "grpo.group_size=2", "grpo.max_length=20", "grpo.num_minibatches=1"],
    "pqn": ["pqn.num_steps=16", "pqn.num_minibatches=2", "pqn.num_epochs=1"],
    "dpo": [], "cpl": [],
}  # fmt: skip
OF_PAIRS = ["pairs.source.num_groups=2", "pairs.source.group_size=2", "pairs.source.num_epochs=1"]


def small(path: Path, tmp_path: Path, pairs: Path) -> str:
    """The text of a configuration that trains in seconds, from a file of ``configs/``."""
    config = load_config(path)
    overrides = SMALL[""] + SMALL[config.algorithm]
    if config.algorithm in ("dpo", "cpl"):
        overrides += [f"pairs.source.path={pairs}"] if config.pairs.source.kind == "offline" else OF_PAIRS
    if config.algorithm == "iqn" and config.iqn.update_interval is None:
        overrides = [each for each in overrides if "update_interval" not in each]
    return dump_config(load_config(path, overrides))


def is_small(path: Path) -> bool:
    """Return whether a file is valid and its run short."""
    try:
        config = load_config(path)
    except ConfigError:
        return False
    evaluation = config.evaluation
    played = max(evaluation.episodes, evaluation.final_episodes) * evaluation.max_episode_steps
    return (
        config.total_steps <= 200 and config.environment.num_envs <= 16 and played <= 1_000 and config.num_threads < 9
    )


def train_here(path: str, directory: str) -> None:
    """Runs ``tesserl train`` in this process, which is asked to stop after `LIMIT`, and ends it."""
    code = 99
    try:
        signal.signal(signal.SIGXCPU, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + GRACE))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        output = os.open(f"{directory}/log", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(directory)
        code = main(["train", path, "--run-dir", f"{directory}/run"])
    finally:
        os._exit(code)


def trained(path: Path, directory: Path) -> tuple[int, str]:
    """Exit code and output of ``tesserl train`` in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *IMPORTED])
    process = context.Process(target=train_here, args=(str(path), str(directory)))
    process.start()
    process.join()
    return process.exitcode, (directory / "log").read_text(errors="replace")


def fault_of_training(code: int, output: str) -> str | None:
    """Return what is wrong with how a training ended; None if it ended well or named the key at fault."""
    if "Traceback" in output or code not in (0, 1, 2, 143, -signal.SIGKILL):
        return "traceback or crash"
    if code in (1, 2):
        said = re.sub(r"\.\d+\b", "", "\n".join(output.splitlines()[-5:]))
        named = {word.rstrip(".") for word in re.findall(r"[a-z][a-z_]*(?:\.[a-z_]+)+", said)}
        named |= {word for word in re.findall(r"\b([a-z_]+): ", said) if "." not in word}
        return None if named & KEYS else "an error that names no key"
    return None


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that torch is imported once")
def test_what_is_accepted_trains_or_names_the_key_at_fault(tmp_path, stores):
    for name in IMPORTED:
        pytest.importorskip(name)
    pairs = stores / "CartPole-v1"
    bases = [small(path, tmp_path, pairs) for path in FILES]
    bases += [dump_config(load_config(written(tmp_path, text), ["total_steps=200"])) for text in BLOCKS]
    path, counts, faults, index = tmp_path / "x.yaml", Counter(), [], 0
    while sum(counts.values()) < int(os.environ.get("TESSERL_FUZZ_RUNS", "300")):
        index += 1
        path.write_bytes(mutations.mutant(f"{SEED}-{index}", bases, mild=True))
        if not is_small(path):
            continue
        directory = tmp_path / str(index)
        directory.mkdir()
        code, output = trained(path, directory)
        counts[{0: "trained", 143: "stopped", -signal.SIGKILL: "killed"}.get(code, "refused")] += 1
        if fault := fault_of_training(code, output):
            faults.append(f"case {SEED}-{index}: {fault}, exit code {code}: {output[-3_000:]}\n{path.read_text()}")
            print(faults[-1], flush=True)  # noqa: T201
    print(dict(counts))  # noqa: T201
    assert not faults, f"{len(faults)} faults, the first: {faults[0]}"


def written(tmp_path: Path, text: str) -> Path:
    """A file with that text."""
    path = tmp_path / "base.yaml"
    path.write_text(text)
    return path


def test_an_error_without_a_key_would_be_found():
    assert (
        fault_of_training(1, "error: it does not fit\n(tesserl --debug ... shows where)")
        == "an error that names no key"
    )
    assert fault_of_training(2, "error: nn.vision.pool_size: expected at most 2") is None
    assert fault_of_training(1, "error: the loss is not finite; lower optimizer.learning_rate") is None
    assert fault_of_training(2, "error: device: cuda is not there") is None
    assert fault_of_training(1, "Traceback (most recent call last):\n  x\nKeyError: 'seed'") == "traceback or crash"
    assert fault_of_training(-11, "") == fault_of_training(99, "") == "traceback or crash"
    assert fault_of_training(-9, "") is fault_of_training(143, "error: stopped by SIGTERM") is None
