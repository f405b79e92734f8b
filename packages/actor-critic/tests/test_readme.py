"""The example of the README runs, and whoever copies it gets a good learner."""

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).parents[1] / "README.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(rollouts):
    assert "range(30)" in EXAMPLE
    torch.manual_seed(0)
    scope = {}
    exec(EXAMPLE.replace("range(30)", f"range({rollouts})"), scope)
    return scope


def test_example_runs():
    scope = run(2)
    assert scope["losses"]["loss_critic"] > 0
    assert all(parameter.grad is not None for parameter in scope["network"].parameters())


@pytest.mark.learn
def test_example_learns_to_balance():
    scope = run(30)
    network, step = scope["network"], scope["step"]
    state, alive, length = 0.1 * torch.rand(50, 4) - 0.05, torch.ones(50, dtype=torch.bool), torch.zeros(50)
    with torch.no_grad():
        for _ in range(500):
            state, length = step(state, network.greedy(state)), length + alive
            alive &= (state[:, 0].abs() <= 2.4) & (state[:, 2].abs() <= 0.209)
    assert length.mean() > 120  # 9 for any constant action, 22 at random; with one body and no clipping 48
