"""Train one tiny seeded run of every algorithm and print the SHA-256 of its final networks.

    python .ci/run_digests.py                        train all, print the digests
    python .ci/run_digests.py --record FILE          write them as JSON, with the machine and the releases
    python .ci/run_digests.py --against FILE         compare with a record; exit code 1 if a network differs
    python .ci/run_digests.py ppo ppo-lstm           these runs alone

A change that only moves code leaves every digest unchanged. Digests depend on the processor and on the releases of
torch and numpy, so a record is valid for one machine only and is not committed. ``values`` is the digest of the
tensors without their names: it stays the same if a network's parts are only renamed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tesserl_configs import load_config
from tesserl_trainer import main as tesserl
from tesserl_trainer import train

COMMON = """
name: digest
seed: 3
environment: {id: CartPole-v1, num_envs: 3}
nn: {vector: {kind: mlp, hidden_sizes: [5]}, heads: {hidden_sizes: [11]}}
optimizer: {kind: adam, learning_rate: 1.0e-3}
evaluation: {interval: 200, episodes: 2, final_episodes: 2, seed: 100, num_envs: 2, max_episode_steps: 50}
checkpoint: {interval: 200}
logging: {interval: 100, tensorboard: false}
"""
IQN = """
algorithm: iqn
iqn: {QUANTILES, num_steps: 3, batch_size: 9, update_interval: 2, collect_steps: 1,
  target_update: {kind: soft, rate: 0.05}, exploration: {kind: epsilon}}
replay: {kind: uniform, capacity: 500, warmup_steps: 60}
"""
DRAWN = "num_taus: 4, num_target_taus: 6, num_policy_taus: 5, num_cosines: 7"
PPO = """
algorithm: ppo
ppo: {num_steps: 20, num_epochs: 2, num_minibatches: 3}
"""
PREFERENCES = """
pairs: {source: {kind: online, num_groups: 1, group_size: 3, buffer_size: 8, num_epochs: 2}, holdout_fraction: 0.2}
"""
PIXELS = [
    "environment={id: MinAtar/Breakout-v1, num_envs: 3}",
    "nn={vision: {kind: cnn, channels: [5], kernel_sizes: [3], strides: [1]}, vector: {kind: none}, "
    "heads: {hidden_sizes: [11]}}",
]
BTR = [*PIXELS, "nn.vision={kind: impala, channels: [4, 6]}", "replay.kind=prioritized"]
RUNS: dict[str, tuple[str, list[str]]] = {
    "iqn": (IQN, []),
    "iqn-prioritized-noisy-munchausen": (
        IQN,
        ["replay.kind=prioritized", "nn.heads={hidden_sizes: [11], noisy: true, dueling: true}", "iqn.munchausen={}"],
    ),
    "iqn-btr": (IQN, [*BTR, "btr={munchausen: true, noisy: true, dueling: true, spectral_norm: true}"]),
    "iqn-fixed-quantiles": (IQN.replace("QUANTILES", "num_fixed_quantiles: 7"), []),
    "ppo": (PPO, []),
    "ppo-pixels": (PPO, PIXELS),
    "ppo-continuous": (PPO, ["environment.id=Pendulum-v1"]),
    "ppo-lstm": (PPO, ["nn.memory={kind: lstm, hidden_size: 7}"]),
    "grpo": ("algorithm: grpo\ngrpo: {group_size: 4, num_groups: 2, num_epochs: 2, num_minibatches: 3}\n", []),
    "dpo-offline": (
        "algorithm: dpo\npairs: {source: {kind: offline, path: STORE}, holdout_fraction: 0.2}\ndpo: {batch_size: 7}\n",
        ["total_steps=200"],
    ),
    "dpo-online": (f"algorithm: dpo\n{PREFERENCES}dpo: {{batch_size: 5}}\n", []),
    "cpl": (f"algorithm: cpl\n{PREFERENCES}cpl: {{batch_size: 5}}\n", ["pairs.source.same_start=false"]),
}


def configuration(name: str, folder: Path) -> Path:
    """Write the configuration of a run and return its path."""
    path = folder / f"{name}.yaml"
    text = f"total_steps: 400{COMMON}{RUNS[name][0]}"
    text = text.replace("QUANTILES", DRAWN).replace("STORE", str(folder / "pairs"))
    path.write_text(text, encoding="utf-8")
    return path


def make_store(folder: Path) -> None:
    """Store pairs of random episodes of CartPole in ``folder/pairs``."""
    episodes, source = str(folder / "episodes"), str(configuration("ppo", folder))
    collect = ["collect", source, "--random", "--out", episodes, "--episodes", "20", "--seed", "1"]
    make = ["pairs", "make", episodes, "--out", str(folder / "pairs"), "--num", "60", "--seed", "1"]
    for command in (collect, make):
        if tesserl(command) != 0:
            raise RuntimeError(f"tesserl {' '.join(command)} must end with exit code 0")


def digests(run_dir: Path) -> dict[str, str]:
    """Return the digests of the newest checkpoint's networks, with and without the names of the tensors."""
    newest = max((run_dir / "checkpoints").glob("step_*"))
    whole, values = hashlib.sha256(), []
    for name, tensor in sorted(load_file(newest / "networks.safetensors").items()):
        content = f"{tensor.dtype}{tensor.shape}".encode() + tensor.tobytes()
        whole.update(name.encode() + content)
        values.append(hashlib.sha256(content).hexdigest())
    return {"digest": whole.hexdigest(), "values": hashlib.sha256("".join(sorted(values)).encode()).hexdigest()}


def train_all(names: list[str]) -> dict[str, dict[str, str]]:
    """Train the named runs in a temporary folder and return their digests."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "dpo-offline" in names:
            make_store(folder)
        for name in names:
            config = load_config(configuration(name, folder), RUNS[name][1])
            found[name] = digests(train(config, run_dir=folder / name))
            print(f"{name}: {found[name]['digest']}", flush=True)
    return found


def machine() -> dict[str, str]:
    """Describe the machine and the releases on which the digests depend."""
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text(encoding="utf-8").splitlines() if processor.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    releases = {name: version(name) for name in ("gymnasium", "numpy", "tensordict", "torch", "torchrl")}
    return {"platform": platform.platform(), "processor": model or platform.processor(), **releases}


def compare(found: dict[str, dict[str, str]], record: dict[str, Any]) -> int:
    """Compare the digests with recorded ones; return 1 if a digest or the machine differs."""
    if record["machine"] != machine():
        print(f"recorded on another machine, digests cannot be compared: {record['machine']}, here {machine()}")
        return 1
    verdicts = {}
    for name, digest in found.items():
        before = record["runs"].get(name)
        if before is None:
            verdicts[name] = "not recorded"
        elif digest == before:
            verdicts[name] = "same"
        else:
            verdicts[name] = "same values, other names" if digest["values"] == before["values"] else "DIFFERENT"
    for name, verdict in verdicts.items():
        print(f"{name}: {verdict}")
    return int(any(verdict not in ("same", "not recorded") for verdict in verdicts.values()))


def main() -> int:
    """Train, then print, record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"all by default: {', '.join(RUNS)}")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the digests as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with recorded digests")
    arguments = parser.parse_args()
    if unknown := set(arguments.runs) - set(RUNS):
        parser.error(f"runs must be some of {', '.join(RUNS)}, got {', '.join(sorted(unknown))}")
    found = train_all(arguments.runs or list(RUNS))
    if arguments.record is not None:
        text = json.dumps({"machine": machine(), "runs": found}, indent=2)
        arguments.record.write_text(text + "\n", encoding="utf-8")
    if arguments.against is not None:
        return compare(found, json.loads(arguments.against.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
