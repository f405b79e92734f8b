"""Keys by the names of other libraries: the message says what they are here."""

import pytest

from tesserl_configs.foreign_names import FOREIGN_NAMES
from tesserl_configs.introspection import all_keys

HEADER = (
    "total_steps: 10_000\nenvironment: {{id: CartPole-v1}}\nnn: {{vector: {{kind: mlp}}}}\nalgorithm: {algorithm}\n"
)
PAIRS = "pairs: {source: {kind: online}}\n"

SAID = {  # (algorithm, override) -> message behind the place
    ("ppo", "gamma=0.99"): "gamma: unknown key; gamma of SB3 and CleanRL is ppo.discount here",
    ("iqn", "gamma=0.99"): "gamma: unknown key; gamma of SB3 and CleanRL is iqn.discount here",
    ("ppo", "ppo.gamma=0.99"): "ppo.gamma: unknown key; gamma of SB3 and CleanRL is ppo.discount here",
    ("ppo", "lr=1e-3"): "lr: unknown key; lr of SB3, CleanRL and TRL is optimizer.learning_rate here",
    ("ppo", "learning_rate=1e-3"): "learning_rate: unknown key; learning_rate of SB3, CleanRL and TRL is "
    "optimizer.learning_rate here",
    ("iqn", "optimizer.lr=1e-3"): "optimizer.lr: unknown key; lr of SB3, CleanRL and TRL is optimizer.learning_rate "
    "here",
    ("ppo", "ppo.clip_range=0.2"): "ppo.clip_range: unknown key; clip_range of SB3 is ppo.clip_epsilon here",
    ("grpo", "grpo.loss={kind: clip, epsilon: 0.1}"): "grpo.loss.epsilon: unknown key; epsilon of TRL is "
    "grpo.loss.clip_epsilon here",
    ("ppo", "n_steps=128"): "n_steps: unknown key; n_steps of SB3 is ppo.num_steps here",
    ("ppo", "ent_coef=0"): "ent_coef: unknown key; ent_coef of SB3 and CleanRL is ppo.entropy_coef here",
    ("ppo", "vf_coef=0.5"): "vf_coef: unknown key; vf_coef of SB3 and CleanRL is ppo.value_coef here",
    ("ppo", "n_envs=8"): "n_envs: unknown key; n_envs of SB3 is environment.num_envs here",
    ("iqn", "total_timesteps=9"): "total_timesteps: unknown key; total_timesteps of SB3 and TRL is total_steps here",
    ("ppo", "ppo.batch_size=64"): "ppo.batch_size: unknown key; batch_size of SB3 is ppo.num_minibatches here: the "
    "number of parts",
    ("iqn", "buffer_size=9"): "buffer_size: unknown key; buffer_size of SB3 and CleanRL is replay.capacity here",
    ("iqn", "iqn.learning_starts=9"): "iqn.learning_starts: unknown key; learning_starts of SB3 and CleanRL is "
    "replay.warmup_steps here",
    ("iqn", "iqn.train_freq=4"): "iqn.train_freq: unknown key; train_freq of SB3 is iqn.update_interval here",
    ("iqn", "iqn.tau=0.005"): "iqn.tau: unknown key; tau of SB3 and CleanRL is iqn.target_update.rate here",
    ("grpo", "num_generations=8"): "num_generations: unknown key; num_generations of TRL is grpo.group_size here",
    ("grpo", "grpo.beta=0.04"): "grpo.beta: unknown key; beta of TRL is grpo.kl.coef here",
    ("dpo", "dpo.loss_type=ipo"): "dpo.loss_type: unknown key; loss_type of TRL is dpo.loss.kind here",
    # names of ours at the wrong place
    ("ppo", "gae_lambda=0.95"): "gae_lambda: unknown key here; did you mean ppo.gae_lambda?",
    ("iqn", "batch_size=32"): "batch_size: unknown key here; did you mean iqn.batch_size?",
    # names that have no counterpart for the algorithm, or stand deep inside of a block
    ("iqn", "iqn.munchausen={tau: 1}"): "iqn.munchausen.tau: unknown key; legal here: alpha, temperature, clip, "
    "log_policy",
    ("dpo", "num_generations=8"): None,
}


@pytest.mark.parametrize(("case", "message"), SAID.items(), ids=[" ".join(case) for case in SAID])
def test_a_name_of_another_library_is_translated_for_the_algorithm(errors_in, case, message):
    algorithm, override = case
    text = HEADER.format(algorithm=algorithm) + (PAIRS if algorithm == "dpo" else "")
    [found] = errors_in(text, override)
    if message is None:
        assert "TRL" not in found
    else:
        assert found == f"--set {override.partition('=')[0]}: {message}"


def test_without_an_algorithm_every_counterpart_is_named(errors_in):
    text = HEADER.format(algorithm="dqn") + "gamma: 0.9\n"
    assert errors_in(text)[1] == (
        "x.yaml:5: gamma: unknown key; gamma of SB3 and CleanRL is iqn.discount or ppo.discount or grpo.discount here"
    )


def test_every_counterpart_is_a_key_of_the_schema():
    known = {f"{block}.{key}".lstrip(".") for block, key in all_keys()}
    assert not {key for foreign in FOREIGN_NAMES.values() for key in foreign.keys} - known


def test_no_name_of_another_library_is_a_key_of_the_top_level():
    assert not set(FOREIGN_NAMES) & {key for block, key in all_keys() if not block}
