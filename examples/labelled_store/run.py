"""Collect episodes, label pairs by return, and train by DPO a policy that is better than the one that played.

The configurations are in configs/: PPO for 6,144 steps trains the playing policy, and DPO learns from whole episodes.
"""

import json
import subprocess
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"


def tesserl(*arguments: str) -> None:
    """Run a command as a shell would."""
    subprocess.run([sys.executable, "-m", "tesserl_trainer.cli", *arguments], check=True)


def result(run: str) -> float:
    """Return the mean return of a run's last weights."""
    return json.loads((Path(run) / "evaluation.json").read_text())["last_return_mean"]


mediocre, dpo = str(CONFIGS / "ppo" / "cartpole.yaml"), str(CONFIGS / "dpo" / "cartpole_offline.yaml")
tesserl("train", mediocre, "--set", "total_steps=6_144", "--run-dir", "mediocre")
tesserl("collect", "mediocre", "--checkpoint", "latest", "--episodes", "2000", "--seed", "7", "--out", "episodes")
tesserl("pairs", "make", "episodes", "--num", "2000", "--out", "pairs")
tesserl("pairs", "inspect", "pairs")
tesserl("train", dpo, "--set", "pairs.source.path=pairs", "--run-dir", "dpo")
before, after = result("mediocre"), result("dpo")
print(f"DPO from stored pairs: {after:.1f}, the policy that made them: {before:.1f}")
if after <= before:
    raise SystemExit("expected a better policy than that of the data")
