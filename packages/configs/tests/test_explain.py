"""Explanations of keys of the schema."""

from dataclasses import replace

import pytest

from tesserl_configs import ConfigError
from tesserl_configs.algorithms import BUILT_IN
from tesserl_configs.explain import explain
from tesserl_configs.introspection import all_keys


def test_a_key_has_meaning_type_range_default_source_and_owner():
    [found] = explain("ppo.gae_lambda")
    assert str(found).splitlines() == [
        "ppo.gae_lambda",
        "  Lambda of generalised advantage estimation (arXiv:1506.02438), in [0, 1].",
        "  algorithm ppo",
        "  type      number in [0, 1]",
        "  default   0.95",
        "  source    paper: 0.95",
    ]


def test_a_key_of_a_kind_names_the_kinds_that_have_it():
    [alpha] = explain("replay.alpha")
    assert (alpha.kinds, alpha.algorithms, alpha.default) == (("prioritized",), ("iqn",), "0.5")
    [capacity] = explain("replay.capacity")
    assert capacity.kinds == ("uniform", "prioritized")


def test_a_key_with_several_forms_is_explained_for_each():
    forms = {found.kinds: found.type for found in explain("dpo.loss.label_smoothing")}
    assert forms == {
        ("sigmoid", "aot", "aot_unpaired"): "number in [0, 0.5]",
        ("robust",): "number in [0, 0.5)",
        ("exo_pair",): "number in [1e-12, 0.5]",
    }


def test_defaults_of_algorithms_stand_beside_that_of_the_schema():
    adam, sgd = explain("optimizer.eps")[0], explain("optimizer.learning_rate")[1]
    assert adam.default == "0.0003125; 1e-5 for ppo, grpo; 1e-8 for dpo, cpl"
    assert (sgd.kinds, sgd.default) == (("sgd",), "0.01")
    assert explain("nn.heads.hidden_sizes")[0].default == "[512]; [] for ppo, grpo, dpo, cpl"


def test_a_schedule_is_named_in_the_type():
    [found] = explain("ppo.clip_epsilon")
    assert found.type == "number in [1e-12, 1) or a schedule of kind linear or exponential or step"
    assert found.keys == {}


def test_a_block_lists_its_keys_by_kind():
    [found] = explain("iqn.target_update")
    assert found.type == "keys of kind soft or hard"
    assert {kind: [key.name for key in keys] for kind, keys in found.keys.items()} == {
        "soft": ["rate", "interval"],
        "hard": ["interval"],
    }
    assert "    rate      Polyak rate, in (0, 1] (Lillicrap et al. 2016 and later: 0.001 to 0.01). [0.005]" in str(
        found
    )


def test_a_kind_may_stand_for_its_block():
    [found] = explain("iqn.target_update.hard")
    assert list(found.keys) == ["hard"]
    [interval] = explain("nn.vision.cnn.preset")
    assert interval.kinds == ("cnn",)


def test_entries_of_lists_have_no_number():
    numbered, [plain] = explain("environment.wrappers.0.height"), explain("environment.wrappers.height")
    assert numbered == [replace(plain, path="environment.wrappers.0.height")]


def test_without_a_key_the_top_level_is_listed():
    [found] = explain()
    assert {"total_steps", "environment", "ppo", "extends"} <= {key.name for key in found.keys[""]}


@pytest.mark.parametrize("path", sorted({f"{block}.{key}".lstrip(".") for block, key in all_keys() if key != "kind"}))
def test_every_key_of_the_schema_is_explained(path, monkeypatch):
    monkeypatch.setattr("tesserl_configs.schema.installed", lambda: list(BUILT_IN.values()))  # it reads all metadata
    for found in explain(path):
        assert found.meaning.strip(), path
        assert found.type, path
        assert found.default, path


UNKNOWN = {
    "ppo.clip_epsilo": "unknown key; did you mean ppo.clip_epsilon, ppo.clip_epsilon_high?",
    "clip_epsilon": "unknown key here; did you mean grpo.loss.clip_epsilon, ppo.clip_epsilon?",
    "gamma": "unknown key; gamma of SB3 and CleanRL is iqn.discount or ppo.discount or grpo.discount here",
    "nn.vision.cn": "unknown key; did you mean nn.vision.cnn?",
    "seed.x": "unknown key; seed has no keys",
    "logging.zzz": "unknown key; legal here: interval, tensorboard, wandb, mlflow, trackio",
}


@pytest.mark.parametrize(("path", "message"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_key_is_answered_with_the_nearest(path, message):
    with pytest.raises(ConfigError) as caught:
        explain(path)
    assert str(caught.value) == f"{path}: {message}"
