"""Train a policy that fuses a picture and a vector: its return exceeds 0.4; with one of the two alone it would be 0."""

import json
from pathlib import Path

from tesserl_configs import load_config
from tesserl_trainer import train

run = train(load_config(Path(__file__).parent / "run.yaml"), run_dir="find_colour")
found = json.loads((run / "evaluation.json").read_text())["return_mean"]
print(f"PPO with the board and the wanted colour: {found:.2f}; the best possible is 1")
if found < 0.4:
    raise SystemExit("expected the wanted stone to be found more often than the other")
