"""Train, report and export a policy for a custom task; it walks nearly the shortest way, a return of about -15.5."""

import json
import subprocess
import sys
from pathlib import Path

FILE = str(Path(__file__).parent / "run.yaml")


def tesserl(*arguments: str) -> None:
    """Run a command as a shell would."""
    subprocess.run([sys.executable, "-m", "tesserl_trainer.cli", *arguments], check=True)


tesserl("config", "validate", FILE)
tesserl("train", FILE, "--run-dir", "corridor")
tesserl("report", "corridor")
tesserl("export", "corridor", "--format", "pt2")
found = json.loads((Path("corridor") / "evaluation.json").read_text())["return_mean"]
print(f"PPO in the corridor: {found:.1f}, the shortest way is -15.5 on average")
if found < -17:
    raise SystemExit("expected nearly the shortest way")
