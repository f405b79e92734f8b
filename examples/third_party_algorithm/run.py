"""Validate, train, resume, sweep, evaluate and export REINFORCE with the commands of the trainer."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FILE, SWEEP = str(HERE / "cartpole.yaml"), str(HERE / "sweep.yaml")


def tesserl(*arguments: str, code: int = 0) -> str:
    """Run a command and return what it printed.

    Raises:
        RuntimeError: it ended with another exit code.
    """
    done = subprocess.run([sys.executable, "-m", "tesserl_trainer.cli", *arguments], capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"tesserl {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def weights(run: str) -> bytes:
    """Return the last weights of a run."""
    newest = json.loads((Path(run) / "checkpoints" / "latest.json").read_text())["checkpoint"]
    return (Path(run) / "checkpoints" / newest / "networks.safetensors").read_bytes()


def main() -> None:
    """Run each command; raise an error if a result is wrong."""
    tesserl("config", "validate", FILE)
    mistake = tesserl("config", "validate", FILE, "--set", "reinforce.discont=0.9", code=2)
    if "did you mean discount?" not in mistake:
        raise RuntimeError(f"expected a hint at the key, got: {mistake}")
    if "ReinforceConfig" not in tesserl("config", "schema"):
        raise RuntimeError("expected the block in the JSON schema")

    tesserl("train", FILE, "--run-dir", "whole")
    result = json.loads((Path("whole") / "evaluation.json").read_text())
    print(f"REINFORCE on CartPole: {result['return_mean']:.1f} over {result['episodes']} episodes")
    if result["return_mean"] < 300:
        raise RuntimeError(f"expected a return of at least 300, got {result['return_mean']}")

    brief = ["--set", "evaluation.final_episodes=2", "--set"]
    tesserl("train", FILE, "--run-dir", "unbroken", *brief, "total_steps=16_384")
    tesserl("train", FILE, "--run-dir", "resumed", *brief, "total_steps=8_192")
    tesserl("train", "--resume", "resumed", "--set", "total_steps=16_384")
    if weights("resumed") != weights("unbroken"):
        raise RuntimeError("expected the resumed run to end with the weights of the one that was not stopped")

    tesserl(
        "sweep",
        SWEEP,
        "--runs",
        ".",
        "--name",
        "sweep",
        "--set",
        "total_steps=8_192",
        "--set",
        "evaluation.final_episodes=2",
    )
    if len(list(Path("sweep").rglob("evaluation.json"))) != 4:
        raise RuntimeError("expected four finished runs")
    tesserl("export", "whole", "--format", "pt2")
    tesserl("eval", "whole", "--episodes", "3")


if __name__ == "__main__":
    main()
