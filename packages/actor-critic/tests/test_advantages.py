"""Advantages: numbers by hand, ends of episodes, and agreement with torchrl."""

import json
from pathlib import Path

import pytest
import torch
from torchrl.objectives.value.functional import generalized_advantage_estimate as torchrls

from tesserl_actor_critic import generalized_advantage_estimate

CASES = json.loads((Path(__file__).parent / "vectors" / "gae.json").read_text())["cases"]
INPUTS = ("reward", "value", "next_value", "terminated", "truncated")


def rollout(*shape, dtype=torch.float64):
    reward, value, next_value = torch.randn(3, *shape, dtype=dtype)
    terminated, truncated = torch.rand(2, *shape) < 0.15
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "terminated": terminated,
        "truncated": truncated,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("last", [(), (1,)])
def test_numbers_by_hand(case, last):
    inputs = {name: torch.tensor(case[name]).reshape(1, -1, *last) for name in INPUTS}
    results = generalized_advantage_estimate(**inputs, discount=case["gamma"], gae_lambda=case["lam"])
    for result, name in zip(results, ("advantage", "value_target"), strict=True):
        torch.testing.assert_close(result, torch.tensor(case[name]).reshape(1, -1, *last))


def test_all_cases_side_by_side_do_not_mix():
    cases = [case for case in CASES if case["gamma"] == 0.99 and case["lam"] == 0.95]
    assert len(cases) == 3
    inputs = {name: torch.tensor([case[name] for case in cases]) for name in INPUTS}
    advantage, _ = generalized_advantage_estimate(**inputs, discount=0.99, gae_lambda=0.95)
    torch.testing.assert_close(advantage, torch.tensor([case["advantage"] for case in cases]))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 8, 9, 128, 1000])
@pytest.mark.parametrize(("discount", "gae_lambda"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.9)])
def test_the_same_as_torchrls_loop(num_steps, discount, gae_lambda):
    inputs = rollout(3, num_steps)
    ours = generalized_advantage_estimate(**inputs, discount=discount, gae_lambda=gae_lambda)
    columns = {name: tensor.unsqueeze(-1) for name, tensor in inputs.items()}
    done = columns["terminated"] | columns["truncated"]
    theirs = torchrls(
        discount,
        gae_lambda,
        columns["value"],
        columns["next_value"],
        columns["reward"],
        done=done,
        terminated=columns["terminated"],
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other.squeeze(-1), rtol=1e-5, atol=1e-5)  # torchrl's factors are float32


def test_double_precision_is_kept():
    inputs = rollout(2, 50)
    advantage, _ = generalized_advantage_estimate(**inputs, discount=0.99, gae_lambda=0.95)
    carried = torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(50)):
        reward, value, next_value, terminated, truncated = (inputs[name][:, t] for name in INPUTS)
        goes_on = (~(terminated | truncated)).double()
        carried = reward + 0.99 * next_value * (~terminated).double() - value + 0.99 * 0.95 * goes_on * carried
        torch.testing.assert_close(advantage[:, t], carried, rtol=1e-12, atol=1e-12)


def test_lambda_0_is_the_one_step_error_and_lambda_1_the_return():
    inputs = {name: tensor for name, tensor in rollout(4, 6).items() if tensor.dtype != torch.bool}
    never = torch.zeros(4, 6, dtype=torch.bool)
    inputs.update(terminated=never, truncated=never)
    advantage, target = generalized_advantage_estimate(**inputs, discount=0.9, gae_lambda=0.0)
    torch.testing.assert_close(target, inputs["reward"] + 0.9 * inputs["next_value"])
    torch.testing.assert_close(advantage, target - inputs["value"])
    inputs["next_value"][:, :-1] = inputs["value"][:, 1:]
    _, target = generalized_advantage_estimate(**inputs, discount=0.9, gae_lambda=1.0)
    powers = 0.9 ** torch.arange(6, dtype=torch.float64)
    returns = (inputs["reward"] * powers).sum(-1) + 0.9**6 * inputs["next_value"][:, -1]
    torch.testing.assert_close(target[:, 0], returns)


@pytest.mark.parametrize(("end", "first"), [("terminated", 1.0), ("truncated", 1.0 + 0.5 * 10)])
def test_an_end_stops_the_bootstrap_or_only_the_chain(end, first):
    inputs = {name: torch.zeros(1, 2) for name in INPUTS[:3]}
    inputs.update({name: torch.zeros(1, 2, dtype=torch.bool) for name in INPUTS[3:]})
    inputs["reward"][0] = torch.tensor([1.0, 100.0])
    inputs["next_value"][0] = torch.tensor([10.0, 0.0])
    inputs[end][0, 0] = True
    advantage, _ = generalized_advantage_estimate(**inputs, discount=0.5, gae_lambda=1.0)
    assert advantage.tolist() == [[first, 100.0]]


def test_what_follows_a_termination_may_be_anything():
    inputs = rollout(1, 3)
    inputs.update(terminated=torch.tensor([[False, True, False]]), truncated=torch.zeros(1, 3, dtype=torch.bool))
    before = generalized_advantage_estimate(**inputs, discount=0.9, gae_lambda=0.9)
    inputs["next_value"][0, 1] = torch.nan
    after = generalized_advantage_estimate(**inputs, discount=0.9, gae_lambda=0.9)
    for mine, other in zip(before, after, strict=True):
        torch.testing.assert_close(mine, other)


def test_inputs_stay_as_they_are_and_get_no_gradient():
    inputs = rollout(2, 9)
    inputs["value"].requires_grad_()
    copies = {name: tensor.clone() for name, tensor in inputs.items()}
    results = generalized_advantage_estimate(**inputs, discount=0.9, gae_lambda=0.9)
    assert not any(result.requires_grad for result in results)
    for name, tensor in inputs.items():
        assert torch.equal(tensor, copies[name])


def test_memory_layout_does_not_matter():
    inputs = rollout(3, 10)
    transposed = {name: tensor.T.contiguous().T for name, tensor in inputs.items()}
    for last in ((), (1,)):
        ours = generalized_advantage_estimate(
            **{name: tensor.reshape(3, 10, *last) for name, tensor in inputs.items()}, discount=0.9, gae_lambda=0.8
        )
        other = generalized_advantage_estimate(
            **{name: tensor.view(3, 10, *last) for name, tensor in transposed.items()}, discount=0.9, gae_lambda=0.8
        )
        for mine, theirs in zip(ours, other, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_compiled_it_is_the_same():
    inputs = rollout(2, 16, dtype=torch.float32)
    compiled = torch.compile(generalized_advantage_estimate, fullgraph=True, backend="aot_eager")
    ours = generalized_advantage_estimate(**inputs, discount=0.99, gae_lambda=0.95)
    for mine, theirs in zip(ours, compiled(**inputs, discount=0.99, gae_lambda=0.95), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": torch.zeros(5)}, r"reward must have the shape \[N, T\] or \[N, T, 1\], got \(5,\)"),
        ({"reward": torch.zeros(2, 3, 2)}, r"got \(2, 3, 2\); time is the second dimension"),
        ({"next_value": torch.zeros(2, 3, 1)}, r"next_value must have the shape of reward \(2, 3\), got \(2, 3, 1\)"),
        ({"discount": 1.01}, r"discount must be in \[0, 1\], got 1.01"),
        ({"gae_lambda": -0.1}, r"gae_lambda must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_input_is_refused(changes, message):
    options = {**rollout(2, 3), "discount": 0.9, "gae_lambda": 0.9, **changes}
    with pytest.raises(ValueError, match=message):
        generalized_advantage_estimate(**options)
