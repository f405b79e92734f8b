"""``tesserl doctor`` on installs that are whole, and on some that are not."""

import importlib
import importlib.metadata
import json

import pytest
import torch

from tesserl_trainer.cli import main
from tesserl_trainer.inspect import doctor

pytestmark = pytest.mark.kernel_free


@pytest.fixture
def without(monkeypatch):
    """Makes a module fail to import, or a distribution disappear."""
    real_import, real_version = importlib.import_module, importlib.metadata.version

    def remove(*names: str, error: BaseException | None = None) -> None:
        def import_module(name, package=None):
            if name in names:
                raise error or ImportError(f"No module named {name!r}")
            return real_import(name, package)

        def version(name):
            if name in names and error is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return real_version(name)

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(importlib.metadata, "version", version)

    return remove


def by_name() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine()}


def test_a_whole_install_is_healthy_and_every_required_thing_has_its_version():
    checks = by_name()
    assert not [check for check in checks.values() if check.status == "broken"]
    siblings = {"configs", "nn-components", "iqn", "actor-critic", "grpo", "preference-opt", "trainer"}
    for name in {f"tesserl-{sibling}" for sibling in siblings} | {"torch", "torchrl", "gymnasium", "pillow"}:
        assert checks[name].detail == importlib.metadata.version(name)


def test_every_extra_is_looked_for():
    extras = importlib.metadata.metadata("tesserl-trainer").get_all("Provides-Extra")
    assert set(doctor.EXTRAS) == set(extras)


@pytest.mark.parametrize(
    ("name", "version", "status", "needed", "remedy"),
    [
        ("tesserl-configs", "0.1.0", "broken", "<0.3,>=0.2", "tesserl-configs<0.3,>=0.2"),
        ("minatar", "1.0.2", "missing", ">=1.0.15", "tesserl-trainer[minatar]"),
    ],
)
def test_a_version_outside_the_range_is_named_with_the_range(monkeypatch, name, version, status, needed, remedy):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda asked: version if asked == name else real(asked))
    check = by_name()[name]
    assert (check.status, check.detail) == (status, f"{version} is installed, {needed} is needed")
    assert check.remedy == f'pip install "{remedy}"'


def test_our_prioritised_sampler_is_really_tried(monkeypatch):
    import tesserl_replay

    def broken(*args, **kwargs):
        raise RuntimeError("SumSegmentTreeFp32 is not available")

    monkeypatch.setattr(tesserl_replay, "PrioritizedSampler", broken)
    check = by_name()["prioritised replay"]
    assert (check.status, check.detail) == ("broken", "RuntimeError: SumSegmentTreeFp32 is not available")


def test_a_missing_extra_names_the_command_that_installs_it(without):
    without("minatar")
    check = by_name()["minatar"]
    assert (check.status, check.detail) == ("missing", "not installed")
    assert check.remedy == 'pip install "tesserl-trainer[minatar]"'


@pytest.mark.parametrize("error", [ImportError("undefined symbol: _ZN5torch"), AttributeError("partially initialized")])
def test_a_required_package_that_does_not_import_is_broken_and_its_first_line_is_shown(without, error):
    without("torchrl", error=error)
    check = by_name()["torchrl"]
    assert (check.status, check.detail) == ("broken", f"{type(error).__name__}: {error}")
    assert check.remedy == 'pip install "torchrl<0.15,>=0.14.1"'


def test_torchrls_extension_is_optional(without):
    without("torchrl._torchrl", error=ImportError("undefined symbol"))
    check = by_name()["torchrl C++ extension"]
    assert (check.status, check.remedy) == ("missing", "")


def test_the_exit_code_is_1_where_something_required_is_broken(without, capsys):
    without("gymnasium")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken  gymnasium" in out
    assert 'mend it with: pip install "gymnasium<2,>=1.4"' in out


def test_the_exit_code_is_0_where_only_extras_are_missing(without, capsys):
    without("minatar", "box2d", "wandb")
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert {check["name"] for check in report["checks"] if check["status"] == "missing"} >= {
        "minatar",
        "box2d",
        "wandb",
    }


def test_json_says_the_same_as_the_table(capsys):
    main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    main(["doctor"])
    out = capsys.readouterr().out
    assert all(f"{check['status']:8}{check['name']}" in out for check in checks)


def test_a_configuration_is_tried_on_this_machine(write_config, capsys):
    path = str(write_config())
    assert main(["doctor", path, "--json"]) == 0
    check = json.loads(capsys.readouterr().out)["checks"][-1]
    size = (4 * 5 + 5) + (7 * 5 + 5) + (5 * 11 + 11) + (11 * 2 + 2)
    assert check["detail"] == f"runs here: CartPole-v1, {size} parameters, on cpu"
    assert main(["doctor", path, "--set", "environment.id=CartPole-v9"]) == 1
    assert "environment.id: " in capsys.readouterr().out
    assert main(["doctor", path, "--set", "iqn.num_tau=3"]) == 1
    assert "did you mean num_taus?" in capsys.readouterr().out
    mistakes = ["--set", "iqn.num_tau=3", "--set", f"iqn.{'x' * 400}=1", "--set", "iqn.num_step=2"]
    assert main(["doctor", path, *mistakes]) == 1
    shown = capsys.readouterr().out
    assert "did you mean num_taus?" in shown
    assert "did you mean num_steps?" in shown
    assert "x" * 400 in shown
    assert main(["doctor", "--set", "seed=1"]) == 2
    assert "--set: name the CONFIG that it overrides" in capsys.readouterr().err


def test_it_says_what_joins_several_ranks(monkeypatch):
    checks = by_name()
    assert checks["gloo"].status == "ok"
    assert checks["NCCL"].status == ("ok" if torch.distributed.is_nccl_available() else "missing")
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    assert by_name()["gloo"].detail == "this torch was built without it; torchrun cannot start several ranks"
