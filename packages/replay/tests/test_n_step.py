import json
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from tesserl_replay import NStepWindow, n_step_returns

VECTORS = json.loads((Path(__file__).parent / "vectors" / "nstep.json").read_text())
CASES = [pytest.param(case, id=case["name"]) for case in VECTORS["cases"]]


def flags(*values):
    return torch.tensor(values, dtype=torch.bool)


def by_hand(reward, terminated, truncated, num_steps, discount):
    """The definition as plain loops over one environment."""
    results = []
    for t in range(len(reward)):
        total, m = 0.0, 0
        while True:
            total += discount**m * reward[t + m]
            m += 1
            last = t + m - 1
            if m == num_steps or terminated[last] or truncated[last] or last == len(reward) - 1:
                break
        results.append((total, 0.0 if terminated[last] else discount**m, last))
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*results, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_returns_agree_with_reference_numbers(case):
    arguments = [torch.tensor(case[key]) for key in ("reward", "terminated", "truncated")]
    arguments[0] = arguments[0].double()
    returns, bootstrap_discount, index = n_step_returns(*arguments, num_steps=case["n"], discount=case["gamma"])
    assert returns.tolist() == pytest.approx([row["ret"] for row in case["out"]])
    assert bootstrap_discount.tolist() == pytest.approx([row["bootstrap_discount"] for row in case["out"]], abs=0)
    assert index.tolist() == [row["bootstrap_from_next_of"] for row in case["out"]]


def test_returns_agree_with_an_independent_implementation_inside_the_data():
    # discounted n-step returns and "done inside the window" of another code base; it drops the last num_steps - 1
    reward, done = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), flags(0, 0, 1, 0, 0)
    for num_steps, expected, done_n in ((2, [2.8, 4.7, 3.0, 8.5], [0, 1, 1, 0]), (3, [5.23, 4.7, 3.0], [1, 1, 1])):
        returns, bootstrap, _ = n_step_returns(reward, done, flags(0, 0, 0, 0, 0), num_steps=num_steps, discount=0.9)
        assert returns[: len(expected)].tolist() == pytest.approx(expected)
        assert (bootstrap[: len(expected)] == 0).tolist() == [bool(value) for value in done_n]


@pytest.mark.parametrize("num_steps", [1, 2, 5, 40])
def test_random_data_agree_with_loops_over_each_environment(num_steps):
    generator = torch.Generator().manual_seed(num_steps)
    reward = torch.randn(5, 2, 11, generator=generator, dtype=torch.float64)
    terminated, truncated = torch.rand(2, 5, 2, 11, generator=generator) < 0.15
    actual = n_step_returns(reward, terminated, truncated, num_steps=num_steps, discount=0.97)
    for i in range(5):
        for j in range(2):
            expected = by_hand(
                reward[i, j].tolist(), terminated[i, j].tolist(), truncated[i, j].tolist(), num_steps, 0.97
            )
            for got, want in zip(actual, expected, strict=True):
                torch.testing.assert_close(got[i, j], want.to(got.dtype), rtol=1e-12, atol=1e-12)


def test_targets_of_a_terminating_episode_are_those_of_its_definition():
    # a value of 100 everywhere, gamma 0.5, terminated at the fourth step: nothing may bootstrap through the end
    reward, terminated = torch.ones(4), flags(0, 0, 0, 1)
    returns, bootstrap, _ = n_step_returns(reward, terminated, flags(0, 0, 0, 0), num_steps=3, discount=0.5)
    assert (returns + bootstrap * 100).tolist() == pytest.approx([14.25, 1.75, 1.5, 1.0])


def test_rewards_outside_a_window_cannot_reach_it():
    reward = torch.tensor([1.0, 2.0, float("nan"), 4.0])
    returns, _, _ = n_step_returns(reward, flags(0, 1, 0, 0), flags(0, 0, 1, 0), num_steps=3, discount=0.5)
    assert returns[[0, 1, 3]].tolist() == [2.0, 2.0, 4.0]
    assert returns[2].isnan()


def test_arguments_are_left_as_they_were():
    reward, terminated, truncated = torch.ones(3), flags(0, 0, 0), flags(0, 0, 0)
    n_step_returns(reward, terminated, truncated, num_steps=2, discount=0.9)
    assert not terminated.any()
    assert not truncated.any()


def test_bad_input_is_refused_with_its_reason():
    good = torch.ones(3), flags(0, 0, 0), flags(0, 0, 0)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        n_step_returns(*good, num_steps=0, discount=0.9)
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1.7"):
        n_step_returns(*good, num_steps=1, discount=1.7)
    with pytest.raises(ValueError, match=r"share one shape .* got \(3,\), \(3, 1\) and \(3,\)"):
        n_step_returns(good[0], good[1][:, None], good[2], num_steps=1, discount=0.9)
    with pytest.raises(TypeError, match=r"reward must be floating point, got torch\.int64"):
        n_step_returns(good[0].long(), *good[1:], num_steps=1, discount=0.9)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got -2"):
        NStepWindow(-2, 0.9)


def rollout(num_envs, num_steps, *, seed=0, mask=False, end=0.15):
    """A chunk whose observations name their environment and step: ``[environment, step]``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_envs, num_steps)
    env, step = torch.meshgrid(torch.arange(num_envs), torch.arange(num_steps), indexing="ij")
    observation = torch.stack([env, step], -1).float()
    terminated = torch.rand(*shape, 1, generator=generator) < end
    truncated = (torch.rand(*shape, 1, generator=generator) < end) & ~terminated
    keep = torch.ones(shape, dtype=torch.bool)
    if mask:  # NEXT_STEP autoreset: the step after the last one of an episode is spent on resetting
        for t in range(1, num_steps):
            ended = (terminated | truncated)[:, t - 1, 0] & keep[:, t - 1]
            keep[ended, t] = False
            terminated[ended, t] = truncated[ended, t] = False
    batch = TensorDict(
        {
            "observation": observation,
            "action": torch.randint(4, shape, generator=generator),
            "policy_version": torch.zeros(shape),
            "next": {
                "observation": observation + torch.tensor([0.0, 0.5]),  # half past: the one after this step
                "reward": torch.randn(*shape, 1, generator=generator, dtype=torch.float64),
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            },
        },
        shape,
    )
    if mask:
        batch["mask"] = keep
    return batch


def chunks(batch, sizes):
    return batch.split(sizes, dim=1)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("num_steps", [1, 3, 6])
def test_window_yields_each_start_with_its_return_and_the_observation_that_follows(num_steps, mask):
    num_envs, length, discount = 5, 30, 0.9
    batch = rollout(num_envs, length, mask=mask)
    transitions = NStepWindow(num_steps, discount).extend(batch)
    expected = {}
    for env in range(num_envs):
        columns = [batch["next", key][env, :, 0].tolist() for key in ("reward", "terminated", "truncated")]
        returns, _, last = by_hand(*columns, num_steps, discount)
        for t in range(length - num_steps + 1):
            if not mask or batch["mask"][env, t]:
                expected[env, t] = (returns[t].item(), int(last[t]))
    got = [(int(env), int(t)) for env, t in transitions["observation"].tolist()]
    assert got == sorted(expected, key=lambda pair: (pair[1], pair[0]))
    for i, (env, t) in enumerate(got):
        total, last = expected[env, t]
        assert transitions["next", "reward"][i].item() == pytest.approx(total)
        assert transitions["next", "observation"][i].tolist() == [env, last + 0.5]
        assert transitions["steps_to_next_obs"][i].item() == last - t + 1
        assert transitions["action"][i] == batch["action"][env, t]
        for key in ("terminated", "truncated", "done"):
            assert transitions["next", key][i] == batch["next", key][env, last]


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("sizes", [[1] * 20, [2, 3, 1, 7, 7], [20]])
def test_stream_does_not_depend_on_how_it_is_cut(num_steps, sizes):
    batch = rollout(3, 20, mask=True)
    whole = NStepWindow(num_steps, 0.9).extend(batch)
    window = NStepWindow(num_steps, 0.9)
    parts = [window.extend(chunk).clone() for chunk in chunks(batch, sizes)]
    assert bool((torch.cat(parts) == whole).all())


def test_first_chunks_yield_nothing_until_a_window_is_complete():
    window, batch = NStepWindow(3, 0.9), rollout(2, 4, end=0.0)
    sizes = [window.extend(chunk).batch_size[0] for chunk in chunks(batch, [1, 1, 1, 1])]
    assert sizes == [0, 0, 2, 2]


def test_only_what_a_loss_needs_comes_out():
    transitions = NStepWindow(2, 0.9).extend(rollout(2, 5, mask=True))
    following = {("next", key) for key in ("observation", "reward", "terminated", "truncated", "done")}
    assert set(transitions.keys(True, True)) == following | {"observation", "action", "steps_to_next_obs"}
    assert transitions["steps_to_next_obs"].dtype == torch.int64
    assert transitions["steps_to_next_obs"].shape == (*transitions.batch_size, 1)


def test_images_and_nested_keys_and_action_blocks_pass_through():
    batch = rollout(2, 6, end=0.0)
    pixels = torch.arange(2 * 6 * 3, dtype=torch.uint8).reshape(2, 6, 3, 1, 1)
    batch["pixels"], batch["next", "pixels"] = pixels, pixels + 100
    batch["recurrent", "h"], batch["next", "recurrent", "h"] = pixels[..., 0], pixels[..., 0] + 1
    batch["action"] = torch.arange(2 * 6 * 4).reshape(2, 6, 4)
    transitions = NStepWindow(2, 0.9).extend(batch)
    assert torch.equal(transitions["pixels"], pixels[:, :5].transpose(0, 1).reshape(-1, 3, 1, 1))
    assert torch.equal(transitions["next", "pixels"], pixels[:, 1:].transpose(0, 1).reshape(-1, 3, 1, 1) + 100)
    assert torch.equal(transitions["next", "recurrent", "h"], pixels[:, 1:, :, 0].transpose(0, 1).reshape(-1, 3, 1) + 1)
    assert torch.equal(transitions["action"], batch["action"][:, :5].transpose(0, 1).reshape(-1, 4))


def test_waiting_steps_survive_a_collector_that_reuses_its_buffers():
    batch = rollout(2, 8)
    expected = NStepWindow(3, 0.9).extend(batch)
    window, buffer, parts = NStepWindow(3, 0.9), batch[:, :4].clone(), []
    for chunk in chunks(batch, [4, 4]):
        buffer.copy_(chunk)
        parts.append(window.extend(buffer))
    buffer.zero_()
    assert bool((torch.cat(parts) == expected).all())


def test_state_continues_exactly():
    batch = rollout(3, 20, mask=True)
    first, second = chunks(batch, [9, 11])
    window, resumed = NStepWindow(4, 0.9), NStepWindow(4, 0.9)
    window.extend(first)
    state = window.state_dict()
    assert all(isinstance(value, torch.Tensor) and len(value) == 3 for value in state.values())
    resumed.load_state_dict(state)
    expected = window.extend(second)
    assert expected.batch_size[0] > 0
    assert bool((resumed.extend(second) == expected).all())


def test_state_of_an_unused_window_is_empty_and_loads():
    window = NStepWindow(4, 0.9)
    window.load_state_dict(NStepWindow(4, 0.9).state_dict())
    assert window.extend(rollout(2, 5)).batch_size[0] == 4


def test_clear_forgets_the_steps_that_wait():
    window, batch = NStepWindow(3, 0.9), rollout(2, 5, end=0.0)
    window.extend(batch)
    window.clear()
    assert torch.equal(window.extend(batch)["observation"], NStepWindow(3, 0.9).extend(batch)["observation"])


def test_bad_chunks_are_refused_with_their_reason():
    window = NStepWindow(3, 0.9)
    with pytest.raises(ValueError, match=r"it lacks \[\('next', 'terminated'\)\]"):
        window.extend(rollout(2, 5).exclude(("next", "terminated")))
    with pytest.raises(ValueError, match="observations in the root and in next under the same keys"):
        window.extend(rollout(2, 5).exclude(("next", "observation")))
    window.extend(rollout(2, 5))
    with pytest.raises(ValueError, match="batch must hold 2 environments as before, got 3"):
        window.extend(rollout(3, 5))
    with pytest.raises(ValueError, match="expected at most 1 waiting steps, got 2"):
        NStepWindow(2, 0.9).load_state_dict(window.state_dict())


def test_windows_end_before_an_action_that_was_not_greedy():
    batch = rollout(1, 8, end=0.0)
    batch["greedy"] = torch.tensor([[True, True, True, False, True, False, False, True]])
    batch["next", "reward"] = torch.arange(1.0, 9.0).reshape(1, 8, 1)
    out = NStepWindow(3, 0.5, cut_at_exploration=True).extend(batch)
    # the first action of a window may be anything: those of steps 3, 5 are not greedy and lead their windows
    assert out["steps_to_next_obs"].squeeze(-1).tolist() == [3, 2, 1, 2, 1, 1]
    assert out["next", "reward"].squeeze(-1).tolist() == [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5, 5, 6]
    for row, t in enumerate([2, 2, 2, 4, 4, 5]):  # what is bootstrapped from follows the last step that was summed
        assert torch.equal(out["next", "observation"][row], batch["next", "observation"][0, t])
    assert "greedy" not in out


def test_windows_that_end_at_exploration_do_not_depend_on_how_the_stream_is_cut():
    batch = rollout(3, 24, mask=True)
    batch["greedy"] = torch.rand(3, 24, generator=torch.Generator().manual_seed(3)) < 0.7
    whole = NStepWindow(4, 0.9, cut_at_exploration=True).extend(batch)
    window = NStepWindow(4, 0.9, cut_at_exploration=True)
    parts = [window.extend(chunk) for chunk in chunks(batch, [1, 7, 2, 14])]
    assert (torch.cat(parts) == whole).all()
    longer = NStepWindow(4, 0.9).extend(batch)
    assert (whole["steps_to_next_obs"] <= longer["steps_to_next_obs"]).all()
    assert (whole["steps_to_next_obs"] < longer["steps_to_next_obs"]).any()


def test_cutting_at_exploration_needs_to_know_what_was_greedy():
    with pytest.raises(ValueError, match=r"it lacks \[\('greedy',\)\]"):
        NStepWindow(3, 0.9, cut_at_exploration=True).extend(rollout(1, 4))


def rewarded(reward, terminated):
    reward, terminated = torch.tensor(reward)[None, :, None], torch.tensor(terminated)[None, :, None].bool()
    time = torch.arange(reward.shape[1] + 1.0)[None, :, None]
    following = {
        "observation": time[:, 1:],
        "reward": reward,
        "terminated": terminated,
        "truncated": torch.zeros_like(terminated),
        "done": terminated,
    }
    return TensorDict(
        {"observation": time[:, :-1], "action": torch.zeros(reward.shape[:2]).long(), "next": following},
        reward.shape[:2],
    )


def test_a_window_keeps_the_sums_on_its_way():
    window = NStepWindow(3, 0.5, keep_partial_returns=True)
    got = window.extend(rewarded([1.0, 2.0, 4.0, 8.0, 16.0], [0, 0, 0, 1, 0]))
    assert got["partial_returns"].tolist() == [[1, 2, 3], [2, 4, 6], [4, 8, 8]]  # the last ends with the episode
    assert torch.equal(got["next", "reward"][:, 0], got["partial_returns"][:, -1])
    single = NStepWindow(1, 0.5, keep_partial_returns=True).extend(rewarded([1.0, 2.0], [0, 1]))
    assert single["partial_returns"].tolist() == [[1], [2]]
    assert "partial_returns" not in NStepWindow(3, 0.5).extend(rewarded([1.0, 2.0, 4.0], [0, 0, 0]))
