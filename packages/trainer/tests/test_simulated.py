"""Runs on a device that is not the CPU: they compute the same, resume, and wait for it as rarely as is said here."""

from collections import Counter

import pytest
import torch

from tesserl_training.checkpoints.run_checkpoints import Checkpoints
from tesserl_training.learner import Learner

from .simulated import DOWNLOAD, NAME, PAGEABLE, SUPPORTED, UPLOAD, WAIT, simulation
from .simulated_runs import CASES, Recorded, configuration

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this release of torch has no back end written in Python")


@pytest.mark.parametrize("case", list(CASES))
def test_runs_that_resume_on_the_device_end_in_the_bits_of_the_cpu(write_config, tmp_path, case):
    """Runs with priorities, which are late there, and with another formula of a cell are compared with a whole one."""
    config = configuration(write_config, case)
    other = (config.algorithm == "iqn" and config.replay.kind == "prioritized") or config.nn.memory.kind == "lstm"
    whole = Recorded(configuration(write_config, case, NAME if other else "cpu"), tmp_path / "whole")
    Recorded(configuration(write_config, case, total_steps=51), tmp_path / "halves")
    checkpoint = Checkpoints(tmp_path / "halves").load("latest")
    resumed = Recorded(config, tmp_path / "halves", checkpoint)
    assert resumed.updates == whole.updates > 0
    assert resumed.networks.keys() == whole.networks.keys()
    for name, tensor in resumed.networks.items():
        assert torch.equal(tensor, whole.networks[name]), name


STEPS = 10
"""Steps of every environment in a rollout."""
BUDGETS = {
    "iqn": {"collector.py:_act": 1},
    "iqn, priorities, noise, Munchausen": {"collector.py:_act": 1},
    "ppo": {"collector.py:_act": STEPS},
    "ppo, pixels": {"collector.py:_act": STEPS},
    "ppo, target_kl": {"collector.py:_act": STEPS, "on_policy.py:_divergence": 2},  # one for each epoch
    "ppo, LSTM": {"collector.py:_act": STEPS, "recurrent.py:_sequences": 6},  # one for each update
    "pqn": {"collector.py:_act": STEPS},
    "grpo": {"collector.py:_act": None, "groups.py:_log_probs": 2},
    "grpo, KL": {"collector.py:_act": None, "groups.py:_log_probs": 2},
    "dpo": {"collector.py:_act": None, "groups.py:_log_probs": 2, "pair_batches.py:with_reference": 2},
    "cpl": {"collector.py:_act": None, "groups.py:_log_probs": 2},
}
"""Waits of a round, by file and function; None for as many as trajectories take steps. An update of iqn has none."""


def waits_of_rounds(run: Recorded) -> list[dict[str, int]]:
    """Return the waits of each round after the first two, in which memory is made."""
    return [dict(round_) for round_ in run.events(WAIT)[2:]]


@pytest.mark.parametrize("case", list(BUDGETS))
def test_rounds_wait_as_often_as_the_budget_says(write_config, tmp_path, case):
    total = 600 if case.startswith("grpo") else 300 if case in ("dpo", "cpl") else 120
    run = Recorded(configuration(write_config, case, total_steps=total), tmp_path)
    rounds = waits_of_rounds(run)
    assert rounds, "too few rounds"
    budget = BUDGETS[case]
    for places in rounds:
        found: Counter[str] = Counter()
        for place, number in places.items():
            found[place.function_name] += number
        expected = {name: found[name] if number is None else number for name, number in budget.items()}
        assert found == expected, {str(place): number for place, number in places.items()}
    assert not any(run.events(PAGEABLE)[2:]) or case == "dpo"  # a frozen reference reads steps that are stored


def test_a_wait_in_an_update_breaks_the_budget_and_is_named(write_config, tmp_path, monkeypatch):
    update = Learner.update

    def update_and_read(*arguments, **options):
        metrics = update(*arguments, **options)
        metrics["loss_objective"].item()
        return metrics

    monkeypatch.setattr(Learner, "update", update_and_read)
    line = update_and_read.__code__.co_firstlineno + 2
    [*_, places] = waits_of_rounds(Recorded(configuration(write_config, "ppo", total_steps=120), tmp_path))
    added = {str(place): number for place, number in places.items() if place.function == "update_and_read"}
    assert added == {f"test_simulated.py:{line} (update_and_read)": 6}


def test_tensors_of_two_devices_cannot_be_mixed():
    with simulation(), pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=NAME) + torch.ones(2)


def test_waits_and_copies_are_told_apart():
    with simulation() as device:
        numbers = torch.arange(4.0, device=NAME)
        assert numbers[1].item() == 1.0
        assert numbers.cpu().tolist() == [0.0, 1.0, 2.0, 3.0]
        assert numbers[numbers > 1].shape == (2,)
        assert device.by_kind() == {WAIT: 3}
        device.events.clear()
        pageable = torch.ones(4)
        pageable.to(NAME, non_blocking=True)
        pageable.pin_memory().to(NAME, non_blocking=True)
        torch.empty(4, pin_memory=True).copy_(numbers, non_blocking=True)
        assert device.by_kind() == {PAGEABLE: 1, UPLOAD: 1, DOWNLOAD: 1}
