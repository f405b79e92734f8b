"""A long run with pixels and priorities keeps the memory that it has."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS, SETTLED = int(os.environ.get("TESSERL_SOAK_SECONDS", "600")), 0.3
"""Length of the run, and the part of it after which its memory must not rise."""

CONFIG = """
name: soak
algorithm: iqn
seed: 3
total_steps: 100000000
environment:
  id: Pictures-v0
  num_envs: 8
  kwargs: {scale: 7, noise: true}
  wrappers: [{kind: frame_stack, num_frames: 4}]
nn:
  vision: {kind: cnn, channels: [8, 8], kernel_sizes: [8, 4], strides: [4, 2]}
  vector: {kind: none}
  heads: {hidden_sizes: [32], noisy: true, dueling: true}
iqn: {num_steps: 3, update_interval: 8, batch_size: 32}
replay: {kind: prioritized, capacity: 2000, warmup_steps: 500, test_fraction: 0.05, cut_at_exploration: true}
evaluation: {interval: 20000, episodes: 2, final_episodes: 1, num_envs: 2}
checkpoint: {interval: 5000}
logging: {interval: 1000, tensorboard: false}
"""


def anonymous_megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def memory_of_a_run(directory: Path) -> list[tuple[float, float]]:
    """Pairs of the part of the run that has passed and the memory in megabytes then."""
    (directory / "soak.yaml").write_text(CONFIG)
    command = [sys.executable, str(Path(__file__).with_name("pictures.py")), "soak.yaml", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    began, samples = time.monotonic(), []
    while (passed := time.monotonic() - began) < SECONDS:
        time.sleep(SECONDS / 120)
        assert process.poll() is None, (directory / "log").read_text()
        samples.append((passed / SECONDS, anonymous_megabytes(process.pid)))
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    return samples


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_memory_does_not_rise_once_the_replay_is_full(tmp_path):
    samples = memory_of_a_run(tmp_path)
    # checkpoints take memory for a moment, so that only the highest of several samples can be compared
    settled = max(size for part, size in samples if SETTLED <= part < SETTLED + 0.2)
    assert max(size for part, size in samples if part >= 0.8) < settled + 20, samples
