"""From stored episodes to a policy: collect, label by a scripted teacher, train by DPO; better than what was stored."""

import json
import subprocess
import sys
from pathlib import Path

NETWORK = "nn={vector: {kind: mlp, hidden_sizes: [64, 64], activation: tanh}}"


def tesserl(*arguments: str) -> None:
    """Run a command as a shell would."""
    subprocess.run([sys.executable, "-m", "tesserl_trainer.cli", *arguments], check=True)


def result(run: str) -> float:
    """Return the mean return of a run's last weights."""
    return json.loads((Path(run) / "evaluation.json").read_text())["last_return_mean"]


Path("mediocre.yaml").write_text(
    f"""\
total_steps: 4_096
environment: {{id: CartPole-v1}}
{NETWORK.replace("=", ": ", 1)}
algorithm: ppo
evaluation: {{interval: 4_096, episodes: 5, final_episodes: 50}}
logging: {{tensorboard: false}}
"""
)
Path("dpo.yaml").write_text(
    f"""\
total_steps: 600
environment: {{id: CartPole-v1}}
{NETWORK.replace("=", ": ", 1)}
algorithm: dpo
pairs: {{source: {{kind: offline, path: pairs}}}}
dpo: {{pretraining: {{num_updates: 300, data: all}}, batch_size: 32}}
optimizer: {{kind: adam, learning_rate: 1.0e-3}}
evaluation: {{interval: 600, episodes: 5, final_episodes: 50}}
logging: {{tensorboard: false}}
"""
)
tesserl("train", "mediocre.yaml", "--run-dir", "mediocre")
tesserl("collect", "mediocre", "--checkpoint", "latest", "--episodes", "800", "--out", "episodes")
tesserl("pairs", "make", "episodes", "--num", "800", "--teacher", "noisy:0.1", "--out", "pairs")
tesserl("pairs", "inspect", "pairs")
tesserl("train", "dpo.yaml", "--run-dir", "dpo")
before, after = result("mediocre"), result("dpo")
print(f"DPO from stored pairs: {after:.1f}, the policy that made them: {before:.1f}")
if after <= before:
    raise SystemExit("expected a better policy than that of the data")
