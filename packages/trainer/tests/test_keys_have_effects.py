"""Each key of the schema reaches what it is for: with another value, something else is built."""

import contextlib
import copy
import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tesserl_configs import ConfigError, dump_config, load_config
from tesserl_configs.document import parse, render
from tesserl_configs.introspection import all_keys, field_at, literals_in
from tesserl_storage.generators import seed_generators
from tesserl_trainer.algorithms import builder_of
from tesserl_trainer.algorithms.run import Run
from tesserl_trainer.algorithms.task import Task
from tesserl_training.progress import ProgressDisplay

from .conftest import config_text
from .fingerprints import fingerprint
from .mutations import at, places, put

pytestmark = pytest.mark.kernel_free

CARTPOLE, BREAKOUT, PENDULUM, CARRACING = "CartPole-v1", "MinAtar/Breakout-v1", "Pendulum-v1", "CarRacing-v3"


class Case(NamedTuple):
    """A configuration, and the keys that are tried in it: those below `below`."""

    task: str
    algorithm: str
    below: tuple[str, ...]
    overrides: tuple[str, ...] = ()


STREAM = "{kind: transformer, d_model: 8, num_heads: 2}"
SCHEDULE = "{kind: linear, knots: [[0, 0.5], [100, 0.1]]}"
BOTH = ("environment.wrappers=[{kind: telemetry}, {kind: resize, height: 20, width: 20}]", "nn.vector={kind: mlp}")
TOKENS = "kind: post_concat, d_model: 8, out_features: 8"
SEQUENCE = "layout: {kind: token_sequence, image_tokens: all, vector_tokens: {kind: dense, num_tokens: 2}}"
SMALL_VIT = "nn.vision={kind: vit, patch_size: 10, d_model: 8, num_layers: 1, num_heads: 2}"
CASES = {
    "run": Case(CARTPOLE, "ppo", ("seed", "total_steps", "environment", "evaluation", "checkpoint", "logging")),
    "evaluations": Case("Pendulum-v1", "ppo", ("evaluation.num_envs",)),  # CartPole plays all episodes at once
    "images": Case(CARRACING, "ppo", ("environment", "channels_last"), BOTH),
    "workers": Case(
        CARTPOLE, "ppo", ("environment.worker_timeout", "environment.start_timeout"),
        ("environment.vectorization=async",),
    ),
    "films": Case(CARTPOLE, "ppo", ("evaluation.video",), ("evaluation.video={interval: 60}",)),
    "early stopping": Case(CARTPOLE, "ppo", ("early_stopping",), ("early_stopping={return: 475}",)),
    "adam": Case(CARTPOLE, "ppo", ("optimizer",), (f"optimizer.learning_rate={SCHEDULE}",)),
    "sgd": Case(CARTPOLE, "ppo", ("optimizer",), ("optimizer={kind: sgd}",)),
    "ppo": Case(CARTPOLE, "ppo", ("ppo",), ("ppo.clip_epsilon_high=0.3", "ppo.reward_scaling={kind: running}")),
    "ppo, schedules": Case(
        CARTPOLE, "ppo", ("ppo",), (f"ppo.entropy_coef={SCHEDULE}", f"ppo.clip_epsilon_high={SCHEDULE}")
    ),
    "ppo, torchrl": Case(CARTPOLE, "ppo", ("ppo.loss",), ("ppo.dual_clip=null", "ppo.value_clip=null")),
    "ppo, continuous": Case(PENDULUM, "ppo", ("ppo.distribution",), ("ppo.distribution={kind: normal}",)),
    "grpo, continuous": Case(PENDULUM, "grpo", ("grpo.distribution",), ("grpo.distribution={kind: normal}",)),
    "dpo, continuous": Case(PENDULUM, "dpo", ("dpo.distribution",), ("dpo.distribution={kind: normal}",)),
    "cpl, continuous": Case(PENDULUM, "cpl", ("cpl.distribution",), ("cpl.distribution={kind: normal}",)),
    "memory": Case(CARTPOLE, "ppo", ("nn.memory", "nn.learning_rate_factors"), ("nn.memory={kind: lstm}",)),
    "heads": Case(CARTPOLE, "ppo", ("nn.heads", "nn.learning_rate_factors"), ("nn.heads.shared_hidden_sizes=[4]",)),
    "policy streams": Case(CARTPOLE, "ppo", ("nn.heads",), (f"nn.heads={{policy: {STREAM}, value: {STREAM}}}",)),
    "advantage stream": Case(CARTPOLE, "iqn", ("nn.heads",), (f"nn.heads={{advantage: {STREAM}}}",)),
    "perceptron streams": Case(
        CARTPOLE, "iqn", ("nn.heads",), ("nn.heads={dueling: true, advantage: {kind: mlp}, value: {kind: mlp}}",)
    ),
    "perceptron policy": Case(CARTPOLE, "grpo", ("nn.heads",), ("nn.heads={policy: {kind: mlp}}",)),
    "vector": Case(CARTPOLE, "ppo", ("nn.vector", "nn.freeze"), ("nn.freeze=[policy]",)),
    "fixed statistics": Case(
        CARTPOLE, "ppo", ("nn.vector",),
        ("nn.vector.normalization={kind: fixed, mean: [1, 1, 1, 1], std: [1, 1, 1, 1]}",),
    ),
    "cnn": Case(
        BREAKOUT, "ppo", ("nn.vision", "nn.learning_rate_factors.vision"),
        (
            "nn.vision={kind: cnn, channels: [5, 5], kernel_sizes: [3, 3], strides: [2, 1], paddings: [1, 1], "
            "hidden_sizes: [6]}",
        ),
    ),
    "impala": Case(BREAKOUT, "ppo", ("nn.vision",), ("nn.vision={kind: impala, channels: [4], pool_size: 2}",)),
    "vit": Case(BREAKOUT, "ppo", ("nn.vision",), ("nn.vision={kind: vit, patch_size: 5, d_model: 8}",)),
    "tokens": Case(
        CARRACING, "ppo", ("nn.fusion", "nn.learning_rate_factors"),
        (*BOTH, SMALL_VIT, f"nn.fusion={{{TOKENS}, {SEQUENCE}, trunk: {{kind: native_transformer, num_heads: 2}}}}"),
    ),
    "fused vector": Case(
        CARRACING, "ppo", ("nn.fusion",),
        (*BOTH, SMALL_VIT, f"nn.fusion={{{TOKENS}, layout: {{kind: fused_vector}}, trunk: {{kind: mlp}}}}"),
    ),
    "unified": Case(
        CARRACING, "ppo", ("nn.fusion",),
        (*BOTH, SMALL_VIT, "nn.fusion={kind: unified, d_model: 8, trunk: {kind: cnn}}"),
    ),
    "tokens of both": Case(
        CARRACING,
        "ppo",
        ("nn.fusion",),
        (*BOTH, SMALL_VIT, "nn.fusion={kind: vision_transformer, d_model: 8, num_tokens: 3, trunk: {kind: mlp}}"),
    ),
    "linear fusion": Case(
        CARRACING, "ppo", ("nn.fusion",), (*BOTH, SMALL_VIT, "nn.fusion={kind: vision_transformer, vision_features: 8}")
    ),
    "iqn": Case(
        CARTPOLE, "iqn", ("iqn", "nn.learning_rate_factors", "nn.heads"),
        ("iqn.munchausen={alpha: 0.5}", "iqn.reset={interval: 9}", "iqn.risk={kind: cvar, eta: 0.5}"),
    ),
    "fixed quantiles": Case(
        CARTPOLE, "iqn", ("iqn.num_fixed_quantiles", "iqn.double", "iqn.policy_tau_sampling"),
        ("iqn={num_fixed_quantiles: 6, batch_size: 9, update_interval: 2, collect_steps: 1}",),
    ),
    "boltzmann": Case(
        CARTPOLE, "iqn", ("iqn.exploration", "iqn.target_update"),
        (f"iqn.exploration={{kind: boltzmann, temperature: {SCHEDULE}}}", "iqn.target_update={kind: hard}"),
    ),
    "horizon": Case(
        CARTPOLE, "iqn", ("iqn.fixed_horizon", "iqn.discount"),
        ("environment.wrappers=[{kind: clock}]", "iqn.fixed_horizon={steps: 20}", "iqn.discount=1.0"),
    ),
    "crop": Case(BREAKOUT, "iqn", ("iqn.random_crop", "replay"), ("iqn.random_crop=1",)),
    "uniform replay": Case(CARTPOLE, "iqn", ("replay", "iqn.update_interval")),
    "weights of replay": Case(CARTPOLE, "iqn", ("replay",), ("replay={kind: prioritized, warmup_steps: 30}",)),
    "replay ratio": Case(
        CARTPOLE, "iqn", ("replay.ratio",),
        ("iqn={batch_size: 9}", "replay={kind: uniform, ratio: 3.0, warmup_steps: 30}"),
    ),
    "replay": Case(
        CARTPOLE, "iqn", ("replay",), (f"replay={{kind: prioritized, beta: {SCHEDULE}, warmup_steps: 30}}",)
    ),
    "grpo": Case(
        CARTPOLE, "grpo", ("grpo",),
        ("grpo.kl={coef: 0.1, reference: {kind: moving_average}}", "grpo.loss.clip_epsilon_high=0.3"),
    ),
    "grpo, levels": Case(
        CARTPOLE, "grpo", ("grpo",),
        (
            "grpo.starts={kind: level, option: low, num_levels: 3}", "grpo.loss={kind: cispo}",
            "grpo.zero_variance={kind: resample}", f"grpo.entropy_coef={SCHEDULE}",
        ),
    ),
    "grpo, visited": Case(CARTPOLE, "grpo", ("grpo.starts",), ("grpo.starts={kind: visited}",)),
    "sapo": Case(CARTPOLE, "grpo", ("grpo.loss",), ("grpo.loss={kind: sapo}",)),
    "grpo, schedules": Case(
        CARTPOLE, "grpo", ("grpo",),
        (
            f"grpo.kl={{coef: {SCHEDULE}, reference: {{kind: sync}}}}",
            f"grpo.loss={{kind: clip, clip_epsilon: {SCHEDULE}, clip_epsilon_high: {SCHEDULE}}}",
        ),
    ),
    "dpo": Case(CARTPOLE, "dpo", ("dpo", "pairs"), ("dpo.reference={kind: sync}", "pairs.source.teacher={beta: 1.0}")),
    "dpo, schedules": Case(CARTPOLE, "dpo", ("dpo",), (f"dpo.entropy_coef={SCHEDULE}", f"dpo.nll_coef={SCHEDULE}")),
    "kto": Case(
        CARTPOLE, "dpo", ("dpo.loss", "dpo.reference"), ("dpo.loss={kind: kto}", "dpo.reference={kind: moving_average}")
    ),
    "simpo": Case(CARTPOLE, "dpo", ("dpo.loss",), ("dpo.loss={kind: simpo}", "dpo.reference={kind: none}")),
    "discopop": Case(CARTPOLE, "dpo", ("dpo.loss",), ("dpo.loss={kind: discopop}",)),
    "hinge": Case(CARTPOLE, "dpo", ("dpo.length_normalize",), ("dpo.loss={kind: hinge}",)),
    "divergence": Case(
        CARTPOLE, "dpo", ("dpo.loss",), ("dpo.loss={kind: sigmoid, f_divergence: {kind: alpha_divergence}}",)
    ),
    "dpo, value": Case(CARTPOLE, "dpo", ("dpo.value",), ("dpo.value={coef: 0.5}",)),
    "starts": Case(
        CARTPOLE, "dpo", ("pairs",), ("pairs.source.starts={kind: level, option: low, num_levels: 3}",)
    ),
    "segments": Case(CARTPOLE, "cpl", ("pairs",), ("pairs.source.segments={kind: fixed, length: 9}",)),
    "cpl": Case(CARTPOLE, "cpl", ("cpl", "pairs")),
    "cpl, schedules": Case(
        CARTPOLE, "cpl", ("cpl",), (f"cpl.bc_coef={SCHEDULE}", f"cpl.entropy_coef={SCHEDULE}", "cpl.value={coef: 0.5}")
    ),
}  # fmt: skip


ELSEWHERE = {
    "algorithm": "every case has one",
    "btr": "becomes other keys before anything is built: test_btr.py of tesserl-configs",
    "extends": "is read before the rest: test_extends.py of tesserl-configs",
    "name": "names the directory of the run and its records: test_train.py",
    "collectors": "worker processes begin with the run: test_process_collectors.py",
    "logging.wandb": "is opened when a run begins: test_loggers.py",
    "logging.mlflow": "is opened when a run begins: test_loggers.py",
    "logging.trackio": "is opened when a run begins: test_loggers.py",
    "device": "a CPU is all that every machine has: test_machine.py",
    "num_threads": "is set for the whole process: test_train.py",
    "initial_weights": "needs another run: test_initial_weights.py",
    "evaluation.final_episodes": "is read after training: test_train.py",
    "evaluation.seed": "is read when episodes are played: test_train.py",
    "evaluation.max_episode_steps": "is read when an episode is played: collectors/tests/test_evaluate_policy.py",
    "environment.id": "every task has another network: test_train.py",
    "environment.imports": "needs a module: test_own_task.py",
    "environment.module_path": "needs a module: test_own_task.py",
    "environment.kwargs": "needs a task with arguments: test_own_task.py",
    "environment.wrappers": "is a list of blocks: test_environments.py",
    "environment.atari": "is for games of ALE: test_atari_training.py",
    "nn.body": "needs a module: test_own_body.py",
    "nn.kwargs": "needs a module: test_own_body.py",
    "nn.vision.preset": "sets several keys at once: test_networks.py",
    "nn.vision.model": "needs a model of Hugging Face, as the next keys do: test_networks.py",
    "nn.vision.revision": "see nn.vision.model",
    "nn.vision.frozen": "see nn.vision.model",
    "nn.vision.image_size": "see nn.vision.model",
    "nn.vision.local_files_only": "see nn.vision.model",
    "nn.vision.out_features": "see nn.vision.model",
    "nn.vision.pixel_mean": "see nn.vision.model",
    "nn.vision.pixel_std": "see nn.vision.model",
    "nn.vision.refine_heads": "see nn.vision.model",
    "nn.vision.refine_layers": "see nn.vision.model",
    "nn.vision.trust_remote_code": "see nn.vision.model",
    "nn.vision.use_backbone_api": "see nn.vision.model",
    "nn.fusion.trunk.model": "needs a model of Hugging Face, as the next keys do: test_networks.py",
    "nn.fusion.trunk.revision": "see nn.fusion.trunk.model",
    "nn.fusion.trunk.local_files_only": "see nn.fusion.trunk.model",
    "nn.fusion.trunk.trust_remote_code": "see nn.fusion.trunk.model",
    "iqn.cuda_graph": "needs a GPU, as the next keys do: test_graphs.py",
    "ppo.cuda_graph": "see iqn.cuda_graph",
    "grpo.cuda_graph": "see iqn.cuda_graph",
    "float32_matmul": "is a setting of the process: test_process.py",
    "pairs.source.path": "needs a store, as the next keys do: test_preferences.py",
    "pairs.source.offline_fraction": "see pairs.source.path",
    "dpo.pretraining": "see pairs.source.path",
    "cpl.pretraining": "see pairs.source.path",
    "grpo.starts.option": "names an option of the task's reset: test_groups.py",
    "pairs.source.starts.option": "names an option of the task's reset: test_groups.py",
}
"""Keys whose effect is not in what a loop is given, with what tests them."""


def loaded(case: Case, directory: Path) -> Any:
    """Return the data of a case's configuration, every key written out."""
    file = directory / "case.yaml"
    text = config_text(BREAKOUT if case.task == CARRACING else case.task, case.algorithm)
    file.write_text(text.replace(BREAKOUT, case.task))
    return parse(dump_config(load_config(file, case.overrides))).data


def built(data: Any, directory: Path) -> dict[str, str]:
    """Return the fingerprint of the loop of a configuration."""
    file = directory / "changed.yaml"
    file.write_text(render(data))
    config = load_config(file)
    seed_generators(config.seed)
    with ExitStack() as stack, contextlib.redirect_stderr(io.StringIO()):
        progress = stack.enter_context(ProgressDisplay(config.total_steps, 0))
        loop = builder_of(config.algorithm).build_loop(Task(config), Run(directory, progress, stack))
        return fingerprint(loop)


def differ(one: dict[str, str], other: dict[str, str]) -> set[str]:
    """Return the paths that are not in both fingerprints with one value."""
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def others(data: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    """Yield values that may stand in place of one."""
    value, field = at(data, path), field_at(list(path), data)
    words = literals_in(field.annotation) if field else ()
    yield from (word for word in words if word != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (2 * value, value / 2, value // 2, value + 1, value - 1, 0.5, 1, 2, 0)
    elif value is None:
        yield from (0.5, 1, 2, 0.1, True, "x", [3], [0.0, 1.0])
    elif isinstance(value, list):
        numbers = [each for each in value if isinstance(each, int | float)]
        yield from ([each / 2 for each in numbers], [2 * each for each in numbers], value[:-1], [*value, *value[-1:]])


def leaves(data: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield (dotted key, path) of everything that holds no mapping."""
    for path in places(data):
        if not isinstance(at(data, path), dict) and not any(isinstance(part, int) for part in path):
            yield ".".join(path), path


def is_below(key: str, blocks: tuple[str, ...]) -> bool:
    return any(key == block or key.startswith(f"{block}.") for block in blocks)


def is_kept(data: Any, path: tuple[Any, ...], before: dict[str, str], noise: set[str], directory: Path) -> bool | None:
    """Return whether another value of a key makes no difference; None if no other value is legal here."""
    kept = None
    for other in others(data, path):
        changed = copy.deepcopy(data)
        put(changed, path, other)
        try:
            after = built(changed, directory)
        except ConfigError:
            continue
        kept = not differ(before, after) - noise
        if not kept:
            return False
    return kept


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # of the compiler
def test_each_key_of_the_schema_makes_a_difference(tmp_path):
    effective, without = set(), set()
    for case in CASES.values():
        data = loaded(case, tmp_path)
        before = built(data, tmp_path)
        noise = differ(before, built(data, tmp_path))  # clocks, addresses, generators that nobody has seeded yet
        for key, path in leaves(data):
            if is_below(key, case.below) and key not in effective and path[-1] != "kind":
                kept = is_kept(data, path, before, noise, tmp_path)
                (effective if kept is False else without).add(key)
    every = {f"{block}.{key}".lstrip(".") for block, key in all_keys()}
    holds_blocks = {block for block, _ in all_keys()}
    missing = {key for key in every - effective - holds_blocks if not key.endswith(".kind")}
    assert {key for key in missing if not is_below(key, tuple(ELSEWHERE))} == set()
    assert {key for key in ELSEWHERE if not any(is_below(each, (key,)) for each in missing)} == set()
