"""``tesserl observe``: draw the observations that the network gets, for a look before training."""

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from tensordict import TensorDictBase
from torch import Tensor, uint8

from tesserl_analysis.plots import require_matplotlib
from tesserl_collectors.collector import Collector
from tesserl_collectors.episodes import UniformActions
from tesserl_configs import RunConfig
from tesserl_configs.iqn import IQNConfig
from tesserl_configs.replay import UniformReplay
from tesserl_environments import closed_afterwards, worker_seeds
from tesserl_replay import NStepWindow
from tesserl_storage.generators import seed_generators
from tesserl_storage.whole_files import write_atomically
from tesserl_trainer.algorithms.replay import build_replay
from tesserl_trainer.algorithms.task import Task
from tesserl_trainer.console.tables import aligned
from tesserl_trainer.usage import ArgumentError

NUM_ENVS, PANELS = 4, 16
"""Most environments, and most pictures in a row."""


def observe(config: RunConfig, *, steps: int = 64, samples: int = 4) -> tuple[TensorDictBase, TensorDictBase]:
    """Play random actions through the wrappers, n-step returns and replay used in training.

    Args:
        config: the whole configuration. For algorithms without a replay, transitions have one step.
        steps: steps of each environment, at least 1; for iqn, at least ``iqn.num_steps``.
        samples: transitions to draw from the replay, at least 1.

    Returns:
        The drawn transitions, ``[samples]``, and all transitions, ``[M]``.

    Raises:
        ConfigError: the task cannot be made, or no network can read its observations.
        ValueError: the actions have no uniform distribution, or the steps do not make a transition.
    """
    seed_generators(config.seed)
    task = Task(config)
    with closed_afterwards(task.environments(min(config.environment.num_envs, NUM_ENVS))) as environments:
        layout = task.layout
        actions = UniformActions(environments.single_action_space, config.seed, mask=layout.mask)
        seeds = worker_seeds(config.seed, environments)
        batch = Collector(environments, layout, actions.act, seeds=seeds).collect(steps)
    options = config.options
    iqn = isinstance(options, IQNConfig)
    window = NStepWindow(options.num_steps, options.discount) if isinstance(options, IQNConfig) else NStepWindow(1, 1.0)
    transitions = window.extend(batch)
    if not len(transitions):
        raise ArgumentError(
            f"--steps: expected at least iqn.num_steps = {config.iqn.num_steps}, got {steps}; take more"
        )
    settings = config.replay if iqn else UniformReplay()
    settings = settings.model_copy(update={"capacity": len(transitions), "test_fraction": 0.0})
    config = config.model_copy(update={"replay": settings, "device": "cpu"})
    with TemporaryDirectory() as directory:
        replay = build_replay(config, Path(directory), layout)
        replay.extend(transitions)
        return next(replay.batches(1, samples)).clone(), transitions


def draw(transitions: TensorDictBase, path: Path, *, num_frames: int) -> None:
    """Draw transitions ``[samples]`` with ``num_frames`` stacked images: a row per observation, first and next."""
    require_matplotlib()
    from matplotlib.figure import Figure  # slow to import

    width = len(list(islice(_panels(transitions[0], num_frames), PANELS)))
    figure = Figure(figsize=(1.5 + 1.6 * max(width, 2), 2.8 * len(transitions) + 0.4), layout="constrained")
    axes = figure.subplots(2 * len(transitions), width, squeeze=False)
    for i, one in enumerate(transitions.unbind(0)):
        steps, ends = int(one["steps_to_next_obs"]), [key for key in ("terminated", "truncated") if one["next", key]]
        outcome = ", ".join([f"reward {float(one['next', 'reward']):.3g}", *ends])
        labels = f"#{i}\naction {one['action'].tolist()}", f"{steps} step{'s' * (steps > 1)} on\n{outcome}"
        for row, (part, label) in enumerate(zip((one, one["next"]), labels, strict=True), 2 * i):
            axes[row, 0].set_ylabel(label, fontsize=8)
            for axis, (title, image) in zip(axes[row], _panels(part, num_frames), strict=False):
                axis.set_title(title, fontsize=8)
                if image.ndim == 1:
                    axis.bar(range(len(image)), image.tolist())
                else:
                    axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255 if image.dtype == uint8 else None)
                    axis.set(xticks=[], yticks=[])
    picture = BytesIO()
    figure.savefig(picture, dpi=100, format="png")
    write_atomically(path, lambda partial: partial.write_bytes(picture.getvalue()))


def _panels(observation: TensorDictBase, num_frames: int) -> Iterator[tuple[str, Tensor]]:
    """Yield titles with images ``[H, W]`` or ``[H, W, 3]``, then the title with the vector ``[F]``."""
    pixels: Tensor
    for pixels in [observation["pixels"]] if "pixels" in observation else []:
        for number, frame in enumerate(pixels.reshape(num_frames, -1, *pixels.shape[1:]), 1):
            images = [frame.movedim(0, -1)] if len(frame) == 3 else list(frame)
            for channel, image in enumerate(images):
                yield f"frame {number}" if len(images) == 1 else f"frame {number}, channel {channel}", image
    if "observation" in observation:
        yield "observation", observation["observation"]


def table(transitions: TensorDictBase) -> str:
    """Return one line per key: type, shape, and the smallest, mean and largest number."""
    rows = [("key", "dtype", "shape", "minimum", "mean", "maximum")]
    for key, value in sorted(transitions.flatten_keys(".").items()):
        numbers = (f"{float(number):.4g}" for number in (value.min(), value.double().mean(), value.max()))
        rows.append((key, str(value.dtype)[6:], " x ".join(map(str, value.shape[1:])) or "-", *numbers))
    return "\n".join(aligned(rows))
