"""Rules about ``ppo:``, one function each; they apply if the algorithm is ppo."""

from __future__ import annotations

from collections.abc import Iterator

from tesserl_configs.errors import Problem
from tesserl_configs.run_keys import Rule, RunKeys
from tesserl_configs.size_rules import rollouts_fit_into_memory


def rollouts_divide_into_minibatches(config: RunKeys) -> Iterator[Problem]:
    """Check that a rollout divides into equal minibatches; with a memory, of whole sequences."""
    ppo, num_envs = config.ppo, config.environment.num_envs
    size = num_envs * ppo.num_steps
    if config.nn.memory.kind != "none":
        if num_envs % ppo.num_minibatches:
            yield Problem(
                "ppo.num_minibatches",
                f"expected a divisor of environment.num_envs = {num_envs}, as nn.memory needs whole sequences, "
                f"got {ppo.num_minibatches}",
            )
    elif size % ppo.num_minibatches:
        yield Problem(
            "ppo.num_minibatches",
            f"expected a divisor of environment.num_envs * ppo.num_steps = {size}, got {ppo.num_minibatches}",
        )
    if ppo.normalize_advantage and size == ppo.num_minibatches:
        yield Problem(
            "ppo.normalize_advantage",
            "divides by the deviation within a minibatch, which holds one step here; "
            "set it to false or take fewer minibatches",
        )


def a_rollout_fits_into_the_run(config: RunKeys) -> Iterator[Problem]:
    """Check that there is at least one update."""
    size = config.environment.num_envs * config.ppo.num_steps
    if size > config.total_steps:
        yield Problem(
            "total_steps", f"expected at least environment.num_envs * ppo.num_steps = {size}, got {config.total_steps}"
        )


def the_loss_knows_its_options(config: RunKeys) -> Iterator[Problem]:
    """Refuse options that torchrl's loss lacks: dual clip, upper clip, value clip."""
    if config.ppo.loss != "torchrl":
        return
    reasons = {
        "dual_clip": "torchrl's ClipPPOLoss has none",
        "clip_epsilon_high": "torchrl's ClipPPOLoss is given clip_epsilon alone",
        "value_clip": "torchrl's ClipPPOLoss is given clip_epsilon alone",
    }
    for key, reason in reasons.items():
        if getattr(config.ppo, key) is not None:
            yield Problem(f"ppo.{key}", f"{reason}; remove it or set ppo.loss: tesserl")


def a_memory_is_shared_and_not_compiled(config: RunKeys) -> Iterator[Problem]:
    """Refuse a separate body of the critic, and torch.compile, with a memory."""
    memory = config.nn.memory.kind
    if memory == "none":
        return
    if not config.ppo.shared_body:
        yield Problem(
            "ppo.shared_body",
            f"one nn.memory, here {memory}, feeds actor and critic; set it to true or choose nn.memory of kind none",
        )
    if config.ppo.compile:
        yield Problem(
            "ppo.compile",
            f"torch.compile does not trace recurrent layers, and nn.memory has kind {memory}; set it to false",
        )


def shared_layers_have_a_shared_body(config: RunKeys) -> Iterator[Problem]:
    """Check that the body is shared if policy and value share hidden layers."""
    if config.nn.heads.shared_hidden_sizes and not config.ppo.shared_body:
        yield Problem(
            "nn.heads.shared_hidden_sizes",
            "policy and value share hidden layers behind one body, and ppo.shared_body is false; "
            "set it to true or write nn.heads.hidden_sizes",
        )


RULES: tuple[Rule, ...] = (
    rollouts_divide_into_minibatches,
    a_rollout_fits_into_the_run,
    the_loss_knows_its_options,
    a_memory_is_shared_and_not_compiled,
    shared_layers_have_a_shared_body,
    rollouts_fit_into_memory,
)
