"""The switches of Beyond The Rainbow: what each fills, that an explicit key wins, and what is refused."""

from pathlib import Path

import pytest
import yaml

from tesserl_configs import RunConfig, dump_config, load_config
from tesserl_configs.btr_resolution import SWITCHES, resolve
from tesserl_configs.btr_switches import at
from tesserl_configs.diff import diff_configs
from tesserl_configs.loader import as_data

PLAIN = """\
total_steps: 1_000_000
environment: {id: ALE/Pong-v5, vectorization: atari}
nn: {}
algorithm: iqn
iqn: {exploration: {epsilon: 0.5}}
replay: {warmup_steps: 5_000}
"""
MINATAR = PLAIN.replace("{id: ALE/Pong-v5, vectorization: atari}", "{id: MinAtar/Breakout-v1}")
FILE = Path(__file__).parents[3] / "configs" / "iqn" / "btr_minatar.yaml"

ALONE = {  # switch: everything that differs from IQN with the network of Mnih et al.
    "munchausen: true": {
        "iqn.munchausen.alpha": 0.9,
        "iqn.munchausen.temperature": 0.03,
        "iqn.munchausen.clip": -1.0,
        "iqn.munchausen.log_policy": "online",
    },
    "munchausen: {alpha: 0.5, log_policy: target}": {
        "iqn.munchausen.alpha": 0.5,
        "iqn.munchausen.temperature": 0.03,
        "iqn.munchausen.clip": -1.0,
        "iqn.munchausen.log_policy": "target",
    },
    "impala: true": {"nn.vision.kind": "impala", "nn.vision.width": 2},
    "impala: {width: 3}": {"nn.vision.kind": "impala", "nn.vision.width": 3},
    "max_pool: true": {"nn.vision.pool_size": 6},
    "max_pool: {size: 5}": {"nn.vision.pool_size": 5},
    "spectral_norm: true": {"nn.vision.spectral_norm": "all"},
    "spectral_norm: true, impala: true": {
        "nn.vision.kind": "impala",
        "nn.vision.width": 2,
        "nn.vision.spectral_norm": "residual",
    },
    "noisy: true": {"nn.heads.noisy": True, "iqn.exploration.kind": "noisy"},
    "layer_norm: true": {"nn.heads.layer_norm": True},
    "dueling: true": {"nn.heads.dueling": True},
    "prioritized: true": {"replay.kind": "prioritized", "replay.alpha": 0.2, "replay.weight_exponent": "alpha"},
    "prioritized: {alpha: 0.6}": {"replay.kind": "prioritized", "replay.alpha": 0.6, "replay.weight_exponent": "alpha"},
    "n_step: true": {"iqn.num_steps": 3},
    "n_step: 5": {"iqn.num_steps": 5},
    "vector_environments: true": {
        "environment.num_envs": 64,
        "iqn.update_interval": 64,
        "iqn.batch_size": 256,
    },
    "vector_environments: 7": {"environment.num_envs": 7, "iqn.update_interval": 7, "iqn.batch_size": 28},
    "noisy: false": {},
}


@pytest.mark.parametrize(("switches", "filled"), ALONE.items(), ids=ALONE)
def test_a_switch_alone_fills_this_and_nothing_else(write, switches, filled):
    plain = as_data(load_config(write(f"{PLAIN}btr: {{}}\n")))
    data = as_data(load_config(write(f"{PLAIN}btr: {{{switches}}}\n")))
    for path, value in filled.items():
        assert at(data, path) == value, path
        *above, key = path.split(".")
        at(data, ".".join(above)).pop(key)
    for path in _leaves(data):
        assert at(data, path) == at(plain, path) or path.startswith(("nn.vision", "replay.")), path


def test_without_a_switch_it_is_iqn_with_the_network_of_mnih_et_al(write):
    config = load_config(write(f"{PLAIN}btr: {{}}\n"))
    assert (config.nn.vision.kind, config.nn.vision.channels) == ("cnn", (32, 64, 64))
    assert (config.replay.kind, config.iqn.exploration.kind) == ("uniform", "epsilon")


def test_minatar_has_the_network_of_young_and_tian_and_pools_that_fit(write):
    vision = load_config(write(f"{MINATAR}btr: {{max_pool: true}}\n")).nn.vision
    assert (vision.channels, vision.kernel_sizes, vision.hidden_sizes) == ((16,), (3,), (128,))
    assert vision.pool_size == 4
    assert load_config(write(f"{MINATAR}btr: {{max_pool: true, impala: true}}\n")).nn.vision.pool_size == 2


@pytest.mark.parametrize("text", ["all", "{all: true}"])
def test_all_is_the_published_recipe(write, text):
    text = f"""\
total_steps: 50_000_000
environment: {{id: ALE/Pong-v5, vectorization: atari}}
nn: {{}}
algorithm: iqn
btr: {text}
"""
    config = load_config(write(text))
    vision, iqn, optimizer, replay = config.nn.vision, config.iqn, config.optimizer, config.replay
    assert (vision.kind, vision.width, vision.pool_size, vision.spectral_norm) == ("impala", 2, 6, "residual")
    heads = config.nn.heads
    assert (heads.hidden_sizes, heads.dueling, heads.noisy, heads.layer_norm) == ((512,), True, True, False)
    assert (iqn.munchausen.alpha, iqn.munchausen.clip, iqn.munchausen.log_policy) == (0.9, -1, "online")
    assert (iqn.num_taus, iqn.num_target_taus, iqn.num_policy_taus, iqn.num_cosines) == (8, 8, 8, 64)
    assert (iqn.discount, iqn.num_steps, iqn.kappa, iqn.max_grad_norm) == (0.997, 3, 1, 10)
    assert (config.environment.num_envs, iqn.update_interval, iqn.batch_size) == (64, 64, 256)
    assert (iqn.target_update.kind, iqn.target_update.interval) == ("hard", 500)
    assert (optimizer.kind, optimizer.learning_rate, optimizer.eps) == ("adam", 1e-4, 0.005 / 256)
    assert (replay.kind, replay.alpha, replay.weight_exponent) == ("prioritized", 0.2, "alpha")
    assert (replay.capacity, replay.warmup_steps) == (2**20, 200_000)
    knots = dict(iqn.exploration.epsilon.knots)
    assert (knots[0], knots[2_000_000], knots[25_000_000]) == (1, 0.3742, 0)  # 0.01 + 0.99 / e


def test_an_explicit_key_wins(write):
    text = f"{PLAIN}btr: all\n".replace("nn: {}", "nn: {vision: {kind: cnn}, heads: {dueling: false}}")
    config = load_config(write(text), ["iqn.num_steps=5", "optimizer={kind: radam}", "environment.num_envs=9"])
    assert (config.nn.vision.kind, config.nn.heads.dueling, config.iqn.num_steps) == ("cnn", False, 5)
    assert (config.nn.vision.pool_size, config.nn.vision.spectral_norm) == (6, "all")  # what convolutions can do
    assert (config.optimizer.kind, config.iqn.exploration.epsilon) == ("radam", 0.5)
    assert (config.iqn.update_interval, config.iqn.batch_size) == (9, 36)  # 4 transitions for each step
    assert config.iqn.target_update.interval == 32_000 // 9
    assert config.replay.warmup_steps == 5_000


@pytest.mark.parametrize("steps", ["500_000", "5e5", "500000.0"])
def test_a_number_fills_the_same_however_it_is_written(write, steps):
    text = f"{PLAIN}btr: all\n".replace("1_000_000", steps).replace("iqn: {exploration: {epsilon: 0.5}}\n", "")
    text = text.replace("vectorization", "num_envs: 8.0, vectorization")
    config = load_config(write(text))
    assert (config.total_steps, config.iqn.update_interval, config.iqn.batch_size) == (500_000, 8, 32)
    assert dict(config.iqn.exploration.epsilon.knots)[250_000] == 0


def test_the_target_is_copied_as_often_where_a_ratio_paces_the_updates(write):
    text = f"{PLAIN}btr: all\n".replace("{warmup_steps: 5_000}", "{warmup_steps: 5_000, ratio: 4}")
    config = load_config(write(text), ["iqn.update_interval=null"])
    assert config.iqn.target_update.interval == 32_000 * 4 // config.iqn.batch_size == 500


def test_all_goes_with_fixed_quantiles(write):
    iqn = load_config(write(f"{PLAIN}btr: all\n"), ["iqn.num_fixed_quantiles=51"]).iqn
    assert (iqn.num_fixed_quantiles, iqn.munchausen.alpha) == (51, 0.9)


def test_a_switch_that_is_off_stays_off_under_all(write):
    config = load_config(write(f"{PLAIN}btr: {{all: true, noisy: false, impala: false, n_step: 2}}\n"))
    assert (config.nn.heads.noisy, config.nn.vision.kind, config.iqn.num_steps) == (False, "cnn", 2)
    assert config.iqn.exploration.kind == "epsilon"


def test_all_leaves_a_task_without_images_without_an_encoder_of_images(load):
    config = load("btr: all\n", "replay.warmup_steps=500")
    assert (config.nn.vision.kind, config.nn.heads.noisy, config.nn.vector.layer_norm) == ("none", True, False)
    assert load("btr: {layer_norm: true}\n").nn.vector.layer_norm


REFUSED = {
    "impala: true": (
        "nn: {vision: {kind: cnn}}",
        'btr.impala: the file sets nn.vision.kind to "cnn", so the switch has no effect; remove one of the two',
    ),
    "noisy: {epsilon: 0.1}": (
        "nn: {}",
        "btr.noisy.epsilon: the file sets iqn.exploration.epsilon to 0.5, so the option has "
        "no effect; remove one of the two",
    ),
    "max_pool: true": (
        "nn: {vision: {kind: vit}}",
        "btr.max_pool: needs convolutions, nn.vision has kind vit; choose cnn or impala there, or remove max_pool",
    ),
    "n_step: 0": ("nn: {}", "btr.n_step: expected a value >= 1, got 0"),
    "n_steps: 3": ("nn: {}", "btr.n_steps: unknown key; did you mean n_step?"),
    "munchausen: {alpa: 1}": ("nn: {}", "btr.munchausen.alpa: unknown key; did you mean alpha?"),
    "munchausen: 3": ("nn: {}", "btr.munchausen: expected keys and values, got 3"),
    "vector_environments: 4_000": (
        "nn: {}",
        "btr.vector_environments: it sets iqn.batch_size",
    ),
    "noisy: true, impala: true": (
        "nn: {vision: {hidden_sizes: [3]}}",
        "nn.vision.hidden_sizes: unknown key for kind impala; it belongs to kind cnn (btr.impala chose the kind)",
    ),
}


@pytest.mark.parametrize(("switches", "nn", "message"), [(key, *value) for key, value in REFUSED.items()], ids=REFUSED)
def test_what_cannot_have_an_effect_is_refused_with_its_place(errors_in, switches, nn, message):
    text = f"{PLAIN}btr: {{{switches}}}\n".replace("nn: {}", nn).replace("5_000", "20_000")
    (error, *_) = [line for line in errors_in(text, "replay.capacity=15_000") if "btr" in line]
    line = 3 if message.startswith("nn.") else 7
    assert error.startswith(f"x.yaml:{line}: {message}")


def test_switches_are_of_iqn_alone(errors_in):
    text = PLAIN.replace("algorithm: iqn", "algorithm: ppo\nbtr: all").replace("iqn: {", "ppo: {} #").split("replay")[0]
    assert "x.yaml:5: btr: belongs to algorithm iqn, got algorithm ppo; remove the block" in errors_in(text)


def test_a_word_other_than_all_is_refused(errors_in):
    assert errors_in(f"{PLAIN}btr: most\n")[0] == 'x.yaml:7: btr: expected one of all, got "most"'


@pytest.mark.parametrize("switches", ["{}", "all", "{all: true, impala: false}", "{noisy: {epsilon: 0.1}}"])
def test_what_is_saved_is_the_same_run_without_the_block(write, switches):
    config = load_config(write(f"{PLAIN.replace('iqn: {exploration', '# iqn: {')}btr: {switches}\n"))
    again = load_config(write(dump_config(config), "again.yaml"))
    assert (again, again.btr, "btr" in as_data(config)) == (config, None, False)
    assert diff_configs(config, again) == []


def test_resolving_is_pure_and_done_once():
    data = yaml.safe_load(f"{PLAIN}btr: {{all: true, noisy: true}}\n")
    before = yaml.safe_dump(data)
    first = resolve(data)
    second = resolve(first.data)
    assert (yaml.safe_dump(data), second.data, second.origins) == (before, first.data, {})
    assert first.origins["nn.heads.noisy"] == "btr.noisy"
    assert first.origins["nn.heads.dueling"] == "btr.all"
    assert RunConfig.model_validate(data) == RunConfig.model_validate(first.data)


@pytest.mark.parametrize("data", [{}, {"btr": "all"}, {"btr": None, "algorithm": "iqn"}, {"btr": {"x": 1}}])
def test_without_switches_and_without_iqn_nothing_is_filled(data):
    assert resolve(data) == (data, {}, [])


@pytest.mark.parametrize("nn", [None, 3, [], {"vision": 3}, {"vision": None, "heads": []}])
def test_malformed_blocks_are_left_to_validation(nn):
    resolve({"algorithm": "iqn", "btr": "all", "nn": nn, "iqn": 3, "replay": [], "total_steps": "x"})


@pytest.mark.parametrize("switch", [None, *SWITCHES, "all"])
def test_the_ablation_of_the_small_recipe_loads_with_every_switch(switch):
    overrides = ["btr=all"] if switch == "all" else [f"btr={{{switch}: true}}"] if switch else ["btr={}"]
    config = load_config(FILE, overrides)
    assert config.environment.num_envs == 8
    assert (config.nn.vision.kind == "impala") == (switch in ("impala", "all"))


def _leaves(data, path=""):
    for key, value in data.items():
        here = f"{path}.{key}".lstrip(".")
        yield from _leaves(value, here) if isinstance(value, dict) else [here]
