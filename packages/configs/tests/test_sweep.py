"""Sweeps: which runs a file stands for, and where its mistakes are said to be."""

from pathlib import Path

import pytest

from tesserl_configs import ConfigError
from tesserl_configs.schema import RunConfig
from tesserl_configs.sweep import load_sweep
from tesserl_configs.sweep_file import OWN_KEYS

SWEEP = """\
config: base.yaml
seeds: [3, 4]
tasks:
  pole: {}
  lander:
    environment.id: LunarLander-v3
    total_steps: 2_000
variants:
  plain: {}
  wide: {nn.vector.hidden_sizes: [64], iqn.num_taus: 16}
  other:
    config: "{variant}-{task}.yaml"
    tasks: [lander]
"""


@pytest.fixture
def files(write):
    """The files that the sweep starts from; returns what writes the sweep."""
    for name in ("base.yaml", "other-lander.yaml"):
        write(name=name)
    return lambda text=SWEEP, name="try.yaml": write(text, name)


def refused(path: Path, *overrides: str, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, overrides, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_sweep_is_every_variant_with_every_seed_on_every_task(files):
    sweep = load_sweep(files())
    assert (sweep.name, sweep.tasks, sweep.variants) == ("try", ("pole", "lander"), ("plain", "wide", "other"))
    assert [str(run.path) for run in sweep.runs] == [
        *("pole/plain/seed-3", "pole/wide/seed-3", "pole/plain/seed-4", "pole/wide/seed-4"),
        *("lander/plain/seed-3", "lander/wide/seed-3", "lander/other/seed-3"),
        *("lander/plain/seed-4", "lander/wide/seed-4", "lander/other/seed-4"),
    ]
    wide = sweep.runs[5].config
    assert (wide.seed, wide.total_steps, wide.environment.id) == (3, 2_000, "LunarLander-v3")
    assert (wide.nn.vector.hidden_sizes, wide.iqn.num_taus) == ((64,), 16)
    assert wide.name == "try-lander-wide"
    plain = sweep.runs[2].config
    assert (plain.seed, plain.total_steps, plain.environment.id) == (4, 1_000, "CartPole-v1")


def test_without_tasks_there_is_no_level_for_them(files):
    sweep = load_sweep(files("config: base.yaml\nseeds: [1]\nvariants: {a: {}}\nname: one\n"))
    assert (sweep.name, str(sweep.runs[0].path), sweep.runs[0].config.name) == ("one", "a/seed-1", "one-a")


def test_overrides_come_last_and_parts_can_be_chosen(files):
    sweep = load_sweep(files(), ["total_steps=700", "iqn.num_taus=9"], name="cut", tasks=["lander"], variants=["wide"])
    assert [(run.config.total_steps, run.config.iqn.num_taus, run.seed) for run in sweep.runs] == [
        (700, 9, 3),
        (700, 9, 4),
    ]
    assert (sweep.name, sweep.variants) == ("cut", ("plain", "wide", "other"))


def test_files_are_found_beside_the_sweep(files, monkeypatch, tmp_path):
    path = files()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load_sweep(path).runs) == 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("iqn.num_taus: 16", "iqn.num_tau: 16", "try.yaml:10: variants.wide: iqn.num_tau: unknown key; did you mean"),
        (
            "iqn.num_taus: 16",
            "iqn.num_taus: 0",
            "try.yaml:10: variants.wide: iqn.num_taus: expected a value >= 1, got 0",
        ),
        ("total_steps: 2_000", "total_steps: x", "try.yaml:7: tasks.lander: total_steps: expected a whole number"),
        ("[64]", "[64], environment: 3", "try.yaml:10: variants.wide: environment: "),
        (
            "base.yaml",
            "bas.yaml",
            "try.yaml:1: config: there is no file bas.yaml; paths are relative to the file of the",
        ),
        ('"{variant}-{task}.yaml"', "x.yaml", "try.yaml:12: variants.other.config: there is no file x.yaml"),
        (
            "config: base.yaml",
            "",
            "try.yaml: config: expected a file that the runs start from, got null for the variant",
        ),
        ("seeds: [3, 4]", "", "try.yaml: seeds: missing; seeds of each variant"),
        ("[3, 4]", "[]", "try.yaml:2: seeds: expected at least 1 entries, got []"),
        ("[3, 4]", "[3, -1]", "try.yaml:2: seeds.1: expected a value >= 0, got -1"),
        ("[3, 4]", "[-1]", "try.yaml:2: seeds.0: expected a value >= 0, got -1"),
        ("[3, 4]", "[3, 3]", "try.yaml:2: seeds: a seed is repeated"),
        ("[3, 4]", "3", "try.yaml:2: seeds: expected a list, got 3"),
        ("variants:", "varaints:", "try.yaml:8: varaints: unknown key; did you mean variants?"),
        (
            "  plain: {}\n",
            "  pl ain: {}\n",
            'try.yaml:9: variants.pl ain: got "pl ain"; a name is letters, digits and _ . + -',
        ),
        ("  plain: {}\n", "  wide: {}\n", "variants.wide: the key is repeated"),
        ("  plain: {}\n", "  plain: 3\n", "try.yaml:9: variants.plain: expected keys and values, got 3"),
        ("  plain: {}\n", "  plain: {seed: 3}\n", "variants.plain.seed: every run has its own; set it with seeds"),
        (
            "tasks: [lander]",
            "tasks: [land]",
            "try.yaml:13: variants.other.tasks: there is no land; did you mean lander?",
        ),
        ("tasks: [lander]", "tasks: lander", 'variants.other.tasks: expected a list of tasks, got "lander"'),
    ],
)
def test_mistakes_have_a_place(files, old, new, message):
    assert old in SWEEP
    assert message in refused(files(SWEEP.replace(old, new, 1)))


def test_bad_seeds_are_no_empty_list(files):
    assert len(refused(files(SWEEP.replace("[3, 4]", "[-1, x]"))).splitlines()) == 2


def test_names_of_runs_do_not_collide(files):
    text = "config: base.yaml\nseeds: [1]\ntasks: {a: {}, a-b: {}}\nvariants: {b-c: {}, c: {}}\n"
    names = [run.config.name for run in load_sweep(files(text)).runs]
    assert names == ["try--a--b-c", "try--a--c", "try--a-b--b-c", "try--a-b--c"]


def test_all_runs_of_the_file_have_a_path_those_left_out_too(files):
    sweep = load_sweep(files(), tasks=["pole"], variants=["wide"])
    assert sweep.paths == tuple(run.path for run in load_sweep(files()).runs)
    assert len(sweep.runs) == 2


def test_a_mistake_of_the_file_below_names_who_made_it_one(files, write):
    path = write(name="base.yaml")
    path.write_text(path.read_text() + "iqn: {num_taus: 4}\n")
    text = SWEEP.replace("plain: {}", "plain: {algorithm: ppo}")
    assert "base.yaml:" in (error := refused(files(text)))
    assert "iqn: belongs to algorithm iqn" in error
    assert error.endswith("(in try.yaml:9: variants.plain on the task pole, and 1 more)")


def test_all_mistakes_are_listed_and_each_once(files):
    text = SWEEP.replace("iqn.num_taus: 16", "iqn.num_tau: 16").replace("plain: {}", "plain: {device: tpu}")
    lines = refused(files(text)).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["try.yaml:9", "variants.plain"],
        ["try.yaml:10", "variants.wide"],
    ]


def test_mistakes_of_the_command_line_and_of_the_files_below(files, write):
    assert "--set iqn.num_tau: iqn.num_tau: unknown key" in refused(files(), "iqn.num_tau=3")
    assert "--task: there is no poles; did you mean pole?" in refused(files(), tasks=["poles"])
    assert "--variant: there is no narrow; there are: plain, wide, other" in refused(files(), variants=["narrow"])
    error = "try.yaml: no run is left: none of the variants other is for pole; choose others with --task and --variant"
    assert refused(files(), tasks=["pole"], variants=["other"]) == error
    text = SWEEP.replace("plain: {}", "plain: {tasks: [lander]}").replace("  wide:", "  #")
    assert "none of the variants plain, other is for pole;" in refused(files(text), tasks=["pole"])
    assert "--set seed=7: every run has its own; set it with seeds of the sweep" in refused(files(), "seed=7")
    assert "--set name = x: every run has its own; set it with name of the sweep" in refused(files(), "name = x")
    assert "a name is letters, digits" in refused(files(), name="a/b")
    text = "config: '{task}.yaml'\nseeds: [1]\nvariants: {a: {}}\n"
    assert "expected no {task}, as there are no tasks" in refused(files(text))
    write("total_steps: 3\nwrong: 1\n", "other-lander.yaml")
    assert "other-lander.yaml:2: wrong: unknown key" in refused(files())


def test_the_keys_of_a_sweep_are_no_keys_of_a_run():
    assert {"config", "tasks"}.isdisjoint(RunConfig.model_fields)
    assert OWN_KEYS.keys() <= RunConfig.model_fields.keys()
