"""Runs that really learn: ``nox -s learn``. The files are those of ``configs/``, unchanged."""

import json
from pathlib import Path

import pytest

from tesserl_analysis.record import read_metrics
from tesserl_configs import load_config
from tesserl_trainer import train

CONFIGS = Path(__file__).parents[3] / "configs"


def learned(tmp_path: Path, name: str, *overrides: str) -> dict:
    config = load_config(CONFIGS / name, overrides)
    return json.loads((train(config, run_dir=tmp_path / "run") / "evaluation.json").read_text())


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_iqn_balances_the_pole(tmp_path, seed):
    result = learned(tmp_path, "iqn/cartpole.yaml", f"seed={seed}")
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
    assert result["last_return_mean"] >= 400


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("max_lag", [1, 100])
def test_iqn_balances_the_pole_with_free_workers(tmp_path, max_lag, seed):
    collectors = f"collectors={{kind: process, workers: 2, mode: async, max_lag: {max_lag}}}"
    few_messages = "iqn.collect_steps=8"
    result = learned(tmp_path, "iqn/cartpole.yaml", f"seed={seed}", few_messages, collectors)
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
    lags = [value for _, name, value, _ in read_metrics(tmp_path / "run" / "metrics.csv") if name == "lag/max"]
    assert max(lags) <= max_lag


@pytest.mark.learn
def test_iqn_lands(tmp_path):
    assert learned(tmp_path, "iqn/lunarlander.yaml")["return_mean"] >= 200


@pytest.mark.learn
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_policies_balance_the_pole(tmp_path, algorithm, seed):
    """Two seeds of each; five are measured by ``nox -s bench -- learning``."""
    result = learned(tmp_path, f"{algorithm}/cartpole.yaml", f"seed={seed}")
    assert result["episodes"] == 100
    assert result["return_mean"] >= 475
