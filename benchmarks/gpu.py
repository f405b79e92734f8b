"""Check and measure everything that this project does on a GPU, in at most ten minutes.

    python benchmarks/gpu.py                      on a machine with a GPU
    python benchmarks/gpu.py --quick              everything once, with small sizes; on a CPU too
    python benchmarks/gpu.py --quick --simulated  on the device of packages/trainer/tests/simulated.py, which no
                                                  machine has: shows that the paths are right, and no speed

It checks that an update gives the same results in eager form, compiled and as a CUDA graph; compares updates per second
in each form with plain torch; counts how often an update waits for the device; kills a run, resumes it and compares it
with an uninterrupted one; and prints the time of the updates for 200 million frames. Checks that a device does not
support are skipped, with the reason.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from common.harness import RESULTS, processor
from common.updates import FORMS, Shape, Update, btr_shape, floor_update, our_update, ppo_shape, reason_against
from tesserl_configs import load_config
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_training.progress import ProgressDisplay

ROOT = Path(__file__).parents[1]
LIMIT = 1e-6
"""Largest difference of a loss or a gradient between two forms, relative to its largest entry."""
FRAMES = 200e6
CHECKED = 6
"""Compared updates: three to warm up, one that is recorded, two that only replay."""
RUNS = {
    "PPO": ("ppo_cartpole.yaml", ["total_steps=384", "ppo.num_steps=16"]),
    "IQN": ("iqn_cartpole.yaml", ["total_steps=240", "replay.warmup_steps=200"]),
    "IQN, priorities": ("iqn_cartpole.yaml", ["total_steps=240", "replay={kind: prioritized, warmup_steps: 200}"]),
}
QUIET = ["evaluation.episodes=2", "evaluation.final_episodes=2", "evaluation.max_episode_steps=50"]


def load_simulated() -> ModuleType:
    """Load the module of the simulated device from the trainer's tests."""
    specification = importlib.util.spec_from_file_location("simulated", ROOT / "packages/trainer/tests/simulated.py")
    if specification is None or specification.loader is None:
        raise FileNotFoundError("packages/trainer/tests/simulated.py is not there; run from a clone")
    module = importlib.util.module_from_spec(specification)
    sys.modules["simulated"] = module
    specification.loader.exec_module(module)
    return module


def shapes(*, is_quick: bool) -> list[Shape]:
    """Return the shapes of the measured updates."""
    if is_quick:
        return [ppo_shape(), btr_shape(batch_size=4, pixels=(4, 12, 20), width=1, hidden=8)]
    return [ppo_shape(), *(btr_shape(batch_size=size, pixels=(4, 84, 84), width=2, hidden=512) for size in (32, 256))]


def outcomes(shape: Shape, form: str, device: str) -> list[Tensor]:
    """Return loss, gradient norm and gradients of updates with learning rate 0."""
    update, parameters = our_update(shape, form, device, learning_rate=0.0)
    found = []
    for seed in range(CHECKED):
        torch.manual_seed(seed)
        metrics = update()
        losses = [value for name, value in metrics.items() if name.startswith(("loss", "gradient_norm"))]
        gradients = [each.grad for each in parameters if each.grad is not None]
        found += [tensor.detach().double().cpu().clone() for tensor in [*losses, *gradients]]
    return found


def check_forms(shape: Shape, device: str, *, is_quick: bool) -> list[dict[str, object]]:
    """Compare every form with the eager update."""
    plain, rows = outcomes(shape, "eager", device), []
    for form in FORMS[1:]:
        row: dict[str, object] = {"shape": shape.name, "form": form}
        if (reason := reason_against(form, device, is_quick=is_quick)) is not None:
            rows.append(row | {"skipped": reason})
            continue
        pairs = zip(outcomes(shape, form, device), plain, strict=True)
        worst = max(float((one - two).abs().max() / two.abs().max().clamp(min=1e-12)) for one, two in pairs)
        rows.append(row | {"difference": worst, "holds": worst <= LIMIT})
    return rows


def per_second(update: Update, device: str, seconds: float) -> float:
    """Return updates per second; wait for the device once, at the end."""

    def run(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            update()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    run(5)  # compiles, or records a graph
    count = max(1, round(seconds / run(3) * 3))
    return count / run(count)


def measure_forms(shape: Shape, device: str, seconds: float, *, is_quick: bool) -> list[dict[str, object]]:
    """Measure every form of ours and of plain torch."""
    rows = []
    for side, make in (("ours", our_update), ("plain torch", floor_update)):
        for form in FORMS if side == "ours" else FORMS[:2]:
            row: dict[str, object] = {"shape": shape.name, "side": side, "form": form}
            if (reason := reason_against(form, device, is_quick=is_quick)) is not None:
                rows.append(row | {"skipped": reason})
                continue
            rate = per_second(make(shape, form, device, learning_rate=1e-4)[0], device, seconds)
            projection = {} if device == "simulated" else {"hours": FRAMES / shape.frames / rate / 3600}
            rows.append(row | {"updates_per_second": rate, **projection})
    return rows


@contextmanager
def waits_counted(device: str, simulated: ModuleType | None) -> Iterator[Counter[str]]:
    """Count waits for the device by the line that causes them."""
    counts: Counter[str] = Counter()
    if simulated is not None:
        with simulated.simulation() as simulation:
            yield counts
            for (kind, place), number in simulation.events.items():
                if kind == simulated.WAIT:
                    counts[str(place)] += number
        return
    if device != "cuda":
        yield counts
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for warning in caught:
            if "synchroniz" in str(warning.message):
                counts[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


def count_waits(name: str, device: str, simulated: ModuleType | None) -> dict[str, object]:
    """Train a few rounds; return the waits per update in acting and in everything else."""
    if device == "cpu":
        return {"run": name, "skipped": "a CPU is never waited for"}
    file, overrides = RUNS[name]
    config = load_config(ROOT / "benchmarks/settings" / file, [*overrides, *QUIET])
    config = config.model_copy(update={"device": device})
    seed_generators(config.seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        progress = stack.enter_context(ProgressDisplay(config.total_steps, 0, quiet=True))
        with waits_counted(device, simulated) as counts:
            loop = builder_of(config.algorithm).build_loop(Task(config), Run(Path(folder), progress, stack))
            loop.journal.open_log()
            if simulated is not None:
                simulated.forget_events()
            counts.clear()
            loop.run()
    updates = loop.journal.updates
    acting = sum(number for place, number in counts.items() if place.startswith("collector.py"))
    others = ("collector.py", "evaluation.py", "tensors.py", "logging.py")  # and evaluations, checkpoints, reports
    rest = sum(number for place, number in counts.items() if not place.startswith(others))
    places = dict(counts.most_common(8))
    return {"run": name, "updates": updates, "acting": acting, "waits_per_update": rest / updates, "places": places}


def kill_and_resume(device: str, folder: Path) -> dict[str, object]:
    """Kill a run at its first checkpoint, resume it, and compare its networks with an uninterrupted run's."""
    if device == "simulated":
        return {
            "run": "killed and resumed",
            "skipped": "the simulated device ends with this process; tests resume on it",
        }
    settings = ["total_steps=16384", "checkpoint.interval=2048", "logging.interval=2048", f"device={device}", *QUIET]
    overrides = [part for setting in settings for part in ("--set", setting)]
    train = [sys.executable, "-m", "tesserl_trainer", "train"]
    file = str(ROOT / "benchmarks/settings/ppo_cartpole.yaml")
    environment = os.environ | {"MPLBACKEND": "Agg", "RL_WARNINGS": "False"}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*train, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    whole, killed = folder / "whole", folder / "killed"
    run = start(file, "--run-dir", str(killed), *overrides)
    deadline = time.monotonic() + 120
    while not list(killed.glob("checkpoints/step_*/manifest.json")) and time.monotonic() < deadline:
        if run.poll() is not None:
            break
        time.sleep(0.02)
    run.kill()
    run.wait()
    codes = [start("--resume", str(killed)).wait(300), start(file, "--run-dir", str(whole), *overrides).wait(300)]
    digests = [newest_digest(each) for each in (killed, whole)]
    return {"run": "killed and resumed", "exit codes": codes, "holds": codes == [0, 0] and digests[0] == digests[1]}


def newest_digest(run_dir: Path) -> str | None:
    """Return the SHA-256 of the newest networks of a run."""
    files = sorted(run_dir.glob("checkpoints/step_*/networks.safetensors"))
    return hashlib.sha256(files[-1].read_bytes()).hexdigest() if files else None


def show(title: str, rows: list[dict[str, object]]) -> None:
    """Print rows as a table."""
    print(f"\n{title}", flush=True)
    for row in rows:
        cells = (f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print("  " + " | ".join(cells), flush=True)


def main() -> int:
    """Check, measure, print and store; return 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one short measurement, nothing compiled")
    parser.add_argument("--simulated", action="store_true", help="on the simulated device")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement (8)")
    options = parser.parse_args()
    simulated = load_simulated() if options.simulated else None
    device = "simulated" if simulated is not None else "cuda" if torch.cuda.is_available() else "cpu"
    seconds = 0.2 if options.quick else options.seconds
    torch.set_num_threads(1)
    torch._inductor.config.fallback_random = True  # compiled code draws the same random numbers as eager code
    torch.backends.cudnn.deterministic = True
    name = torch.cuda.get_device_name() if device == "cuda" else f"{device} ({processor()})"
    print(f"device: {name}, torch {torch.__version__}")
    found = shapes(is_quick=options.quick)
    with simulated.simulation() if simulated is not None else nullcontext():
        checks = [row for shape in found for row in check_forms(shape, device, is_quick=options.quick)]
        show(f"equal to the plain update, to {LIMIT:g}", checks)
        torch.backends.cudnn.deterministic = False
        speeds = [row for shape in found for row in measure_forms(shape, device, seconds, is_quick=options.quick)]
    unit = "of this process; no speed of any device" if simulated is not None else "and hours of 200 million frames"
    show(f"updates per second {unit}", speeds)
    waits = [count_waits(run, device, simulated) for run in RUNS]
    show("waits for the device beside acting, per update", waits)
    with tempfile.TemporaryDirectory() as folder:
        resumed = [kill_and_resume(device, Path(folder))]
    show("a run that is killed", resumed)
    RESULTS.mkdir(exist_ok=True)
    record = {"benchmark": "gpu", "date": time.strftime("%Y-%m-%d"), "device": name, "torch": torch.__version__}
    record |= {"checks": checks, "speeds": speeds, "waits": waits, "resumed": resumed, "quick": options.quick}
    (RESULTS / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    return int(any(row.get("holds") is False for row in [*checks, *resumed]))


if __name__ == "__main__":
    sys.exit(main())
