"""Lambda-returns against hand computation and against a slow loop that shares nothing with the package."""

import pytest
import torch

from tesserl_pqn import mix_quantiles, q_lambda_returns, quantile_huber_loss, quantile_lambda_targets
from tesserl_pqn.functional import greedy_quantiles

T, F = True, False


def flags(*values):
    return torch.tensor([values])


def slow_returns(reward, next_value, terminated, truncated, discount, lambda_):
    """Average the n-step returns of each step with weights (1 - lambda) lambda^(n - 1), the rest on the longest."""
    num_envs, num_steps = reward.shape
    result = torch.zeros(num_envs, num_steps, dtype=torch.float64)
    for env in range(num_envs):
        for begin in range(num_steps):
            total, rewards, remaining = 0.0, 0.0, 1.0
            for n in range(1, num_steps - begin + 1):
                t = begin + n - 1
                rewards += discount ** (n - 1) * float(reward[env, t])
                bootstrap = 0.0 if terminated[env, t] else discount**n * float(next_value[env, t])
                ends = bool(terminated[env, t] or truncated[env, t]) or t == num_steps - 1
                weight = remaining if ends else remaining * (1 - lambda_)
                total += weight * (rewards + bootstrap)
                remaining -= weight
                if ends:
                    break
            result[env, begin] = total
    return result


def random_rollout(num_envs=7, num_steps=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = num_envs, num_steps
    reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    value = torch.randn(shape, generator=generator, dtype=torch.float64)
    ends = torch.rand(shape, generator=generator)
    return reward, value, ends < 0.1, (ends > 0.05) & (ends < 0.2)


def test_three_steps_by_hand():
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    returns = q_lambda_returns(reward, value, flags(F, F, F), flags(F, F, F), discount=0.5, lambda_=0.5)
    # G2 = 3 + 0.5 * 30 = 18; G1 = 2 + 0.5 (10 + 9) = 11.5; G0 = 1 + 0.5 (5 + 5.75) = 6.375
    assert returns.tolist() == [[6.375, 11.5, 18.0]]


def test_a_terminated_step_is_its_reward_and_a_truncated_one_bootstraps():
    reward, value = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 30.0]])
    ended = q_lambda_returns(reward, value, flags(F, T, F), flags(F, F, F), discount=0.5, lambda_=0.5)
    assert ended.tolist() == [[1 + 0.5 * (0.5 * 10 + 0.5 * 2), 2.0, 18.0]]
    cut = q_lambda_returns(reward, value, flags(F, F, F), flags(F, T, F), discount=0.5, lambda_=0.5)
    assert cut.tolist() == [[1 + 0.5 * (0.5 * 10 + 0.5 * 12), 12.0, 18.0]]
    both = q_lambda_returns(reward, value, flags(F, T, F), flags(F, T, F), discount=0.5, lambda_=0.5)
    assert torch.equal(both, ended)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.65, 1.0])
def test_returns_equal_the_average_of_n_step_returns(lambda_):
    rollout = random_rollout()
    returns = q_lambda_returns(*rollout, discount=0.9, lambda_=lambda_)
    torch.testing.assert_close(returns, slow_returns(*rollout, 0.9, lambda_))


def test_lambda_0_is_one_step_and_lambda_1_sums_rewards_to_the_end():
    reward, value, _, _ = random_rollout()
    never = torch.zeros_like(reward, dtype=torch.bool)
    one_step = q_lambda_returns(reward, value, never, never, discount=0.9, lambda_=0.0)
    torch.testing.assert_close(one_step, reward + 0.9 * value)
    whole = q_lambda_returns(reward, value, never, never, discount=0.9, lambda_=1.0)
    powers = 0.9 ** torch.arange(reward.shape[1], dtype=torch.float64)
    torch.testing.assert_close(whole[:, 0], (powers * reward).sum(1) + 0.9 ** reward.shape[1] * value[:, -1])


@pytest.mark.parametrize("end", ["terminated", "truncated"])
@pytest.mark.parametrize("quantiles", [False, True])
def test_nothing_passes_from_one_episode_into_another(end, quantiles):
    reward, value, _, _ = random_rollout()
    never, at_ten = torch.zeros(7, 23, dtype=torch.bool), torch.zeros(7, 23, dtype=torch.bool)
    at_ten[:, 10] = True
    ends = {"terminated": never, "truncated": never, end: at_ten}
    function = quantile_lambda_targets if quantiles else q_lambda_returns
    following = value.unsqueeze(-1) + torch.arange(5.0) if quantiles else value
    before = function(reward, following, **ends, discount=0.9, lambda_=0.8)
    other_reward, other_following = reward.clone(), following.clone()
    other_reward[:, 11:] += 100
    other_following[:, 11:] += 100
    after = function(other_reward, other_following, **ends, discount=0.9, lambda_=0.8)
    assert torch.equal(before[:, :11], after[:, :11])
    assert not torch.isclose(before[:, 11:], after[:, 11:]).any()


def test_what_follows_a_terminated_step_may_be_anything():
    reward, value = torch.tensor([[1.0, 2.0]]), torch.tensor([[float("nan"), 4.0]])
    returns = q_lambda_returns(reward, value, flags(T, F), flags(F, F), discount=0.5, lambda_=0.5)
    assert returns.tolist() == [[1.0, 4.0]]
    following = value.unsqueeze(-1).expand(1, 2, 3)
    targets = quantile_lambda_targets(reward, following, flags(T, F), flags(F, F), discount=0.5, lambda_=0.5)
    assert targets.tolist() == [[[1.0] * 3, [4.0] * 3]]


def test_mixtures_by_hand():
    # values 0, 4 with probability 1/4 each, and 1, 2 with 1/4 each: sorted 0, 1, 2, 4; halves have means 1/2 and 3
    mixed = mix_quantiles(torch.tensor([4.0, 0.0]), torch.tensor([1.0, 2.0]), 0.5)
    assert mixed.tolist() == [0.5, 3.0]
    # probabilities 0: 3/8, 4: 3/8, 1: 1/8, 2: 1/8: the lower half is 0 (3/8) and 1 (1/8), the upper 2 and 4
    mixed = mix_quantiles(torch.tensor([4.0, 0.0]), torch.tensor([1.0, 2.0]), 0.25)
    assert mixed.tolist() == [0.25, 3.5]


def test_mixtures_equal_means_over_segments_of_many_samples():
    torch.manual_seed(0)
    first, second = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64) + 1
    mixed = mix_quantiles(first, second, 0.3)
    samples = torch.cat([first.repeat_interleave(7, 1), second.repeat_interleave(3, 1)], 1).sort(1).values  # 50
    torch.testing.assert_close(mixed, samples.reshape(3, 5, 10).mean(-1))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_mixture_without_one_part_is_the_other(weight):
    torch.manual_seed(0)
    first, second = torch.randn(4, 9), torch.randn(4, 9)
    expected = (second if weight else first).sort(-1).values
    torch.testing.assert_close(mix_quantiles(first, second, weight), expected)


@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_the_mean_of_quantile_targets_is_the_scalar_target(lambda_):
    reward, value, terminated, truncated = random_rollout()
    torch.manual_seed(0)
    following = value.unsqueeze(-1) + torch.randn(7, 23, 11, dtype=torch.float64)
    targets = quantile_lambda_targets(reward, following, terminated, truncated, discount=0.9, lambda_=lambda_)
    returns = q_lambda_returns(reward, following.mean(-1), terminated, truncated, discount=0.9, lambda_=lambda_)
    torch.testing.assert_close(targets.mean(-1), returns)
    assert (targets.diff(dim=-1) >= -1e-12).all()  # equal values may differ by rounding


def test_quantile_targets_by_hand_and_in_spread():
    reward, never = torch.tensor([[0.0, 0.0]]), flags(F, F)
    following = torch.tensor([[[0.0, 0.0], [8.0, 8.0]]])
    # the second step leads to 8 for certain: the first to 0 or 8 with probability 1/2 each, not to their mean 4
    targets = quantile_lambda_targets(reward, following, never, never, discount=1.0, lambda_=0.5)
    assert targets.tolist() == [[[0.0, 8.0], [8.0, 8.0]]]


def test_greedy_quantiles_are_those_of_the_largest_mean():
    quantiles = torch.tensor([[[1.0, 0.0], [1.0, 3.0]], [[5.0, 0.0], [1.0, 3.0]]])  # [2, K, A]
    assert greedy_quantiles(quantiles).tolist() == [[0.0, 3.0], [5.0, 1.0]]


def test_quantile_huber_loss_by_hand():
    quantiles, targets = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 3.0])
    # tau 1/4: u = 0.5, 3: 0.25 (0.125 + 2.5) / 2; tau 3/4: u = -0.5, 2: (0.25 * 0.125 + 0.75 * 1.5) / 2
    expected = 0.25 * 2.625 / 2 + (0.25 * 0.125 + 0.75 * 1.5) / 2
    assert quantile_huber_loss(quantiles, targets).item() == pytest.approx(expected)
    pinball = (0.25 * 0.5 + 0.25 * 3) / 2 + (0.25 * 0.5 + 0.75 * 2) / 2
    assert quantile_huber_loss(quantiles, targets, kappa=0).item() == pytest.approx(pinball)
    assert quantile_huber_loss(quantiles, targets, kappa=1e-6).item() == pytest.approx(pinball, rel=1e-5)


GOOD = {
    "reward": torch.zeros(2, 3),
    "next_value_max": torch.zeros(2, 3),
    "terminated": torch.zeros(2, 3, dtype=torch.bool),
    "truncated": torch.zeros(2, 3, dtype=torch.bool),
    "discount": 0.9,
    "lambda_": 0.5,
}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            {"next_value_max": torch.zeros(2, 3, 1)},
            ValueError,
            r"next_value_max must have the shape of reward \(2, 3\)",
        ),
        ({"terminated": torch.zeros(2, 3)}, TypeError, "terminated must be bool, got torch.float32"),
        ({"truncated": torch.zeros(3, dtype=torch.bool)}, ValueError, "truncated must have the shape of reward"),
        ({"reward": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "reward must be floating point"),
        ({"reward": torch.zeros(2, 0)}, ValueError, "at least one step"),
        ({"discount": 1.1}, ValueError, r"discount must be in \[0, 1\], got 1.1"),
        ({"lambda_": -0.1}, ValueError, r"lambda_ must be in \[0, 1\], got -0.1"),
    ],
)
def test_wrong_inputs_are_named(wrong, error, message):
    with pytest.raises(error, match=message):
        q_lambda_returns(**{**GOOD, **wrong})


def test_quantiles_need_one_dimension_more():
    inputs = {key: value for key, value in GOOD.items() if key != "next_value_max"}
    with pytest.raises(ValueError, match="next_quantiles must have one dimension more"):
        quantile_lambda_targets(next_quantiles=torch.zeros(2, 3), **inputs)
