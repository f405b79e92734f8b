"""Messages about wrong files."""

import json

import pytest

from tesserl_configs import ConfigError, load_config

MESSAGES = {  # override -> message after the place
    "iqn.num_tau=5": "iqn.num_tau: unknown key; did you mean num_taus?",
    "evaluation.zzz=5": "evaluation.zzz: unknown key; legal here: interval, episodes, final_episodes, seed, num_envs, "
    "max_episode_steps, video, process",
    "nn.vector.strides=[1]": "nn.vector.strides: unknown key here; did you mean nn.vision.strides?",
    "nn.vision={kind: none, channels: [8]}": "nn.vision.channels: unknown key for kind none; it belongs to kind cnn, "
    "impala",
    "replay.alpha=0.5": "replay.alpha: unknown key for kind uniform; it belongs to kind prioritized",
    "iqn.exploration={kind: epsilon, epsilon: 0.1, temperature: 1}": "iqn.exploration.temperature: unknown key for "
    "kind epsilon; it belongs to kind boltzmann",
    "nn.fusion={kind: none, layers: 2}": "nn.fusion.layers: unknown key; legal here: kind only",
    "nn.fusion={kind: unified, layout: 2}": "nn.fusion.layout: unknown key for kind unified; it belongs to kind "
    "post_concat",
    "nn.vector.mean=[1]": "nn.vector.mean: unknown key here; did you mean nn.vector.normalization.mean?",
    "nn.learning_rate_factors={visoin: 2}": "nn.learning_rate_factors.visoin: unknown key; did you mean vision?",
    "discount=0.9": "discount: unknown key here; did you mean iqn.discount?",
    "iqn.munchausen={tau: 1}": "iqn.munchausen.tau: unknown key; legal here: alpha, temperature, clip, log_policy",
    "algorithm=dqn": 'algorithm: expected one of iqn, ppo, grpo, dpo, cpl, got "dqn"; did you mean iqn?',
    "ppo={num_step: 5}": "ppo: belongs to algorithm ppo, got algorithm iqn; remove the block",
    "ppo.clip_epsilon=7": "ppo: belongs to algorithm ppo, got algorithm iqn; remove the block",
    "environment.atari={}": "environment.atari: belongs to vectorization atari or envpool, got sync; remove the block",
    "num_epochs=4": "num_epochs: unknown key; legal here: extends, name, seed, total_steps, environment, collectors, "
    "nn, initial_weights, algorithm, iqn, btr, optimizer, replay, evaluation, early_stopping, checkpoint, logging, "
    "device, channels_last, num_threads, float32_matmul",
    "collectors={kind: process, delay: 2}": "collectors.delay: expected a value <= 1, got 2; number of rounds by "
    "which the acting weights lag behind, 0 or 1. With 0 acting and learning alternate; with 1 the workers collect the "
    "next round while the learner learns from this one",
    "collectors={kind: local, workers: 2}": "collectors.workers: unknown key for kind local; it belongs to "
    "kind process, ray",
    "environment.vectorization=asink": "environment.vectorization: expected one of sync, async, vector_entry_point, "
    'atari, envpool, got "asink"; did you mean async?',
    "nn.freeze=[hedas]": "nn.freeze.0: expected one of body, vision, vector, fusion, trunk, memory, embedding, heads, "
    'shared, advantage, policy, value, got "hedas"; did you mean heads?',
    "iqn.cosine_activation=leaky": 'iqn.cosine_activation: expected one of relu, leaky_relu, got "leaky"; did you mean '
    "leaky_relu?",
    "nn.vision={kind: impala, pixel_range: signed}": "nn.vision.pixel_range: expected one of unit, symmetric, "
    'centered, got "signed"',
    "nn.heads.shared_hidden_sizes=[0]": "nn.heads.shared_hidden_sizes.0: expected a value >= 1, got 0; widths of the "
    "hidden layers shared by policy and value, between body and streams, >= 1; empty: none. Not for iqn; algorithms "
    "without a value use them for the policy",
    "iqn.cosine_start=2": "iqn.cosine_start: expected one of 0, 1, got 2",
    "optimizer={kind: adan}": "optimizer: expected one of the kinds adam, adamw, radam, sgd, got adan; "
    "did you mean adam?",
    "optimizer={learning_rate: 1e-3}": "optimizer: kind is missing; expected one of adam, adamw, radam, sgd",
    "optimizer.learning_rate={kind: lin, knots: [[0, 1]]}": "optimizer.learning_rate.kind: expected one of linear, "
    'exponential, step, got "lin"; did you mean linear?',
    "iqn.risk={kind: cvar}": "iqn.risk.eta: missing; fraction of the worst outcomes to average over, in (0, 1]; 1 is "
    "risk-neutral",
    "iqn.discount=1.7": "iqn.discount: expected a value <= 1, got 1.7; discount of one environment step, in [0, 1] "
    "(paper: 0.99)",
    "iqn.num_steps=1.5": "iqn.num_steps: expected a whole number, got 1.5; number of rewards summed before "
    "bootstrapping, >= 1 (paper: 1)",
    "seed=true": "seed: expected a whole number, got true; seed of all random numbers of the run, >= 0",
    'seed="3"': None,  # an override is read as YAML: quoted it is text
    "nn.heads.hidden_sizes=5": "nn.heads.hidden_sizes: expected a list, got 5; widths of the hidden layers of each "
    "stream that has no block of its own, >= 1 (IQN paper: 512); empty: a linear layer",
    "nn.heads.noisy=maybe": 'nn.heads.noisy: expected true or false, got "maybe"; use noisy linear layers with '
    "sigma 0.5 (Fortunato et al. 2018); iqn only",
    "iqn=7": "iqn: expected keys and values, got 7; options of implicit quantile networks",
    "iqn.kappa=.nan": "iqn.kappa: expected a finite number, got NaN; threshold of the Huber loss, in reward units, "
    ">= 0; 0: quantile loss (paper: 1)",
    "optimizer.betas=[0.9]": "optimizer.betas.1: missing; decay rates of the first and the second moment, in [0, 1) "
    "(torch's defaults)",
    "optimizer.betas=[0.9, 0.9, 0.9]": "optimizer.betas: expected at most 2 entries, got [0.9, 0.9, 0.9]; decay rates "
    "of the first and the second moment, in [0, 1) (torch's defaults)",
    "nn.vision={kind: cnn, channels: []}": "nn.vision.channels: expected at least 1 entries, got []; number of output "
    "channels of each convolution, >= 1",
    "device=gpu": 'device: got "gpu"; device of the networks: cpu, cuda or cuda:N',
    "name=a/b": 'name: got "a/b"; name of the run and of its directory, made of letters, digits and _ . + -; null: the '
    "file's path below configs/, with '-' for '/'",
    "environment.id=": "environment.id: expected text, got null; gymnasium id of the task, e.g. CartPole-v1 or "
    "MinAtar/Breakout-v1; module:Id-v0 first imports the module that registers the id",
    "replay.beta=7": "replay.beta: unknown key for kind uniform; it belongs to kind prioritized",
}
MESSAGES['seed="3"'] = 'seed: expected a whole number, got "3"; seed of all random numbers of the run, >= 0'

OUT_OF_RANGE = [
    "total_steps=0",
    "seed=-1",
    "num_threads=0",
    "environment.num_envs=0",
    "environment.worker_timeout=0",
    "iqn.num_taus=0",
    "iqn.num_target_taus=0",
    "iqn.num_policy_taus=0",
    "iqn.num_cosines=0",
    "iqn.discount=-0.1",
    "iqn.num_steps=0",
    "iqn.kappa=-1",
    "iqn.update_interval=0",
    "iqn.collect_steps=0",
    "iqn.batch_size=0",
    "iqn.max_grad_norm=0",
    "iqn.munchausen.alpha=1.1",
    "iqn.munchausen.temperature=0",
    "iqn.munchausen.clip=0.1",
    "iqn.target_update={kind: soft, rate: 0}",
    "iqn.target_update={kind: soft, rate: 1.01}",
    "iqn.target_update={kind: hard, interval: 0}",
    "iqn.exploration.epsilon=1.01",
    "iqn.exploration={kind: boltzmann, temperature: 0}",
    "iqn.risk={kind: cvar, eta: 0}",
    "iqn.risk={kind: cvar, eta: 1.01}",
    "iqn.risk={kind: cpw, eta: 0}",
    "optimizer.learning_rate=0",
    "optimizer.eps=0",
    "optimizer.betas=[0.9, 1.0]",
    "optimizer.weight_decay=-1",
    "optimizer={kind: sgd, momentum: 1}",
    "replay.capacity=0",
    "replay.warmup_steps=0",
    "replay={kind: prioritized, alpha: 2}",
    "replay={kind: prioritized, beta: -1}",
    "replay={kind: prioritized, eps: 0}",
    "evaluation.interval=0",
    "evaluation.episodes=0",
    "evaluation.final_episodes=0",
    "evaluation.seed=-1",
    "evaluation.num_envs=0",
    "evaluation.max_episode_steps=0",
    "checkpoint.interval=0",
    "checkpoint.keep_last=0",
    "logging.interval=0",
    "nn.heads.hidden_sizes=[0]",
    "nn.vector.normalization={kind: fixed, mean: [0], std: [0]}",
]


@pytest.mark.parametrize(("override", "message"), MESSAGES.items(), ids=MESSAGES)
def test_a_mistake_is_named_with_what_was_expected(errors_of, override, message):
    place = override.partition("=")[0]
    assert errors_of(override) == [f"--set {place}: {message}"]


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused_with_its_bound(errors_of, override):
    [message] = errors_of(override)
    assert ": expected a value " in message
    assert f"--set {override.partition('=')[0]}: " in message


@pytest.mark.parametrize("risk", ["{kind: wang, eta: -0.75}", "{kind: pow, eta: -2}", "{kind: cvar, eta: 1}"])
def test_a_risk_at_its_bound_or_without_one_loads(load, risk):
    load("", f"iqn.risk={risk}")


def test_a_missing_block_is_named_with_what_it_is(errors_in):
    assert errors_in("total_steps: 1000\nalgorithm: iqn\nnn: {vector: {kind: mlp}}\n") == [
        "x.yaml: environment: missing; task, and the number of its copies"
    ]


def test_a_key_has_the_line_where_it_stands_and_errors_are_sorted_by_it(errors_in):
    text = """\
algorithm: iqn
iqn:
  discount: 1.7
  num_tau: 5
nn: {vector: {kind: mlp}}
environment:
  id: CartPole-v1
  wrappers:
    - {kind: time_limit, max_episode_steps: 5}
    - kind: reward_scale
      scale: -1
    - {kind: rewardscale}
total_steps: many
"""
    assert [message.split(": ")[:2] for message in errors_in(text)] == [
        ["x.yaml:3", "iqn.discount"],
        ["x.yaml:4", "iqn.num_tau"],
        ["x.yaml:11", "environment.wrappers.1.scale"],
        ["x.yaml:12", "environment.wrappers.2"],
        ["x.yaml:13", "total_steps"],
    ]


def test_a_missing_key_has_the_line_of_its_block(errors_in, write):
    text = "total_steps: 1000\nalgorithm: iqn\nnn: {vector: {kind: mlp}}\nenvironment:\n  num_envs: 4\n"
    [message] = errors_in(text)
    assert message.startswith("x.yaml:4: environment.id: missing; ")


def test_a_long_value_is_cut(errors_of):
    [message] = errors_of(f"iqn.discount=[{', '.join(['0.123456789'] * 50)}]")
    assert len(message) < 220


ODD_KEYS = {" ": '" "', "a\nb": '"a\\nb"', "a: b": '"a: b"', "a" * 300: '"' + "a" * 56 + "..."}


@pytest.mark.parametrize(("key", "shown"), ODD_KEYS.items(), ids=["blank", "line", "colon", "long"])
def test_a_key_that_is_no_word_is_quoted_and_cut(write, key, shown):
    path = write()
    text = path.read_text()
    path.write_text(text + f"{json.dumps(key)}: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    [message] = caught.value.messages
    line = text.count("\n") + 1
    assert message.startswith(f"{path}:{line}: {shown}: unknown key; ")
