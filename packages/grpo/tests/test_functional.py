"""The policy loss against reference numbers and hand computation."""

import math

import pytest
import torch

from tesserl_grpo import group_policy_loss, step_weights
from tesserl_grpo.functional import importance_log_ratio, top_entropy_mask
from tesserl_grpo.kl import kl_estimate
from tesserl_policy import masked_mean

REDUCTIONS = {"grpo": "grpo", "dapo": "bnpo_dapo", "dr_grpo": "dr_grpo"}


@pytest.fixture
def example(vectors, padded):
    """Log-probabilities, advantages and mask of the reference file, wider than its longest row and with bad padding."""
    data = vectors("grpo_loss")
    names = ("log_prob_new", "log_prob_old", "log_prob_ref")
    new, old, reference = (padded(data[name], fill=math.nan, width=5)[0] for name in names)
    mask = padded(data["log_prob_new"], width=5)[1]
    advantages = torch.tensor(data["advantage"], dtype=torch.float64).unsqueeze(-1).expand_as(new).clone()
    advantages[~mask] = math.inf
    return data, new, old, reference, advantages, mask


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_clipped_loss_is_the_reference_number(example, padded, case, reduction):
    data, new, old, reference, advantages, mask = example
    case = data["cases"][case]
    level = {"token": "step", "sequence": "trajectory"}[case["importance_level"]]
    losses = group_policy_loss(new, old, advantages, mask, importance_level=level, reduction="none")
    divergence = kl_estimate(new, reference, kind="k3")
    total = losses + case["beta_kl"] * torch.where(mask, divergence, 0.0)
    torch.testing.assert_close(total, padded(case["per_token_loss"], width=5)[0], rtol=0, atol=1e-12)
    weights = step_weights(mask, reduction=reduction, max_length=data["Tmax"], dtype=torch.float64)
    expected = case["loss"][REDUCTIONS[reduction]]
    assert float((total * weights).sum()) == pytest.approx(expected, abs=1e-12)
    assert float(masked_mean(divergence, mask)) == pytest.approx(case["k3_mean"], abs=1e-12)
    if not case["beta_kl"]:
        options = {"importance_level": level, "reduction": reduction, "max_length": data["Tmax"]}
        assert float(group_policy_loss(new, old, advantages, mask, **options)) == pytest.approx(expected, abs=1e-12)


def test_ratios_are_the_reference_numbers(example, padded):
    data, new, old, _, _, mask = example
    for case, level in ((data["cases"][0], "step"), (data["cases"][2], "trajectory")):
        ratio = importance_log_ratio(new, old, mask, level=level).exp()
        torch.testing.assert_close(torch.where(mask, ratio, 0.0), padded(case["ratio"], width=5)[0], rtol=0, atol=1e-12)


def test_cispo_is_the_reference_number_and_bounds_the_weight(example, padded):
    data, new, old, _, advantages, mask = example
    expected = data["cispo_eps_high5"]
    options = {"kind": "cispo", "clip_epsilon_high": 5.0}
    losses = group_policy_loss(new, old, advantages, mask, **options, reduction="none")
    torch.testing.assert_close(losses, padded(expected["per_token"], width=5)[0], rtol=0, atol=1e-12)
    loss = group_policy_loss(new, old, advantages, mask, **options, reduction="dapo")
    assert float(loss) == pytest.approx(expected["token_mean"], abs=1e-12)
    bounded = group_policy_loss(new, old, advantages, mask, kind="cispo", clip_epsilon_high=1.5, reduction="none")
    assert float(bounded[0, 3]) == pytest.approx(1.5 * 0.8 * 0.9)  # the ratio 1.82 counts as 1.5
    assert torch.equal(group_policy_loss(new, old, advantages, mask, kind="cispo", reduction="none"), losses)


def test_the_top_entropy_mask_is_the_reference_and_drops_steps_from_the_numerator_only(example, padded):
    data, new, old, _, advantages, mask = example
    expected = data["top_entropy"]
    entropy, _ = padded(expected["entropy"], fill=math.nan, width=5)
    chosen = top_entropy_mask(entropy, mask, expected["rho"])
    assert torch.equal(chosen, padded(expected["mask"], width=5)[0].bool())
    losses = group_policy_loss(new, old, advantages, mask, reduction="none")
    loss = group_policy_loss(
        new, old, advantages, mask, entropy=entropy, top_entropy_fraction=expected["rho"], reduction="dapo"
    )
    assert float(loss) == pytest.approx(float(losses[chosen].sum()) / int(mask.sum()))
    assert top_entropy_mask(torch.ones(2, 3), None, 0.1).all()  # of steps that are equally uncertain, all
    same = group_policy_loss(new, old, advantages, mask, entropy=entropy, top_entropy_fraction=1.0)
    assert torch.equal(same, group_policy_loss(new, old, advantages, mask))


def test_each_step_has_a_gradient_of_its_own_under_the_ratio_of_its_trajectory(example):
    _, new, old, _, advantages, mask = example
    advantages = advantages + 0.1 * torch.arange(5)  # differs by step, as GSPO-token allows
    gradients = {}
    for level in ("trajectory", "trajectory_step"):
        own = new.clone().requires_grad_()
        losses = group_policy_loss(own, old, advantages, mask, importance_level=level, reduction="none")
        gradients[level] = torch.autograd.grad(losses.sum(), own)[0][mask], losses.detach()
    torch.testing.assert_close(gradients["trajectory"][1], gradients["trajectory_step"][1])  # one value
    ratio = importance_log_ratio(new, old, mask, level="trajectory").exp()
    held = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    expected = torch.where(held, 0.0, -ratio * advantages)[mask]  # d(s A) / d log pi_t = s A_t
    torch.testing.assert_close(gradients["trajectory_step"][0], expected)


def test_worse_trajectories_that_the_policy_has_left_are_left_out():
    old = torch.zeros(4, 3, dtype=torch.float64)
    new = torch.tensor(
        [[-1.0, -0.2, -0.6], [-0.5, -0.4, -0.3], [-0.9, -0.9, -0.9], [-0.9, 9.0, 9.0]], dtype=torch.float64
    )
    mask = torch.tensor([[True] * 3] * 3 + [[True, False, False]])
    advantages = torch.tensor([[-1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64).expand(4, 3)
    plain = group_policy_loss(new, old, advantages, mask, reduction="none")
    losses = group_policy_loss(new, old, advantages, mask, reduction="none", off_policy_threshold=0.5)
    # means of old - new: 0.6 and worse: out; 0.4: stays; 0.9 and better: stays; 0.9 on its only step and worse: out
    expected = torch.where(torch.tensor([[False], [True], [True], [False]]), plain, 0.0)
    torch.testing.assert_close(losses, expected)
    total = group_policy_loss(new, old, advantages, mask, reduction="dapo", off_policy_threshold=0.5)
    assert float(total) == pytest.approx(float(expected.sum()) / 10)  # the divisor counts all steps


PPO_CASES = {
    "symmetric_0p2": {},
    "asymmetric_0p2_0p28": {"clip_epsilon_high": 0.28},
    "dual_clip_0p2_c1p5": {"delta": 1.5},
}


@pytest.mark.parametrize(("name", "options"), PPO_CASES.items(), ids=PPO_CASES.keys())
def test_on_flat_steps_it_is_ppos_clipped_loss(vectors, name, options):
    data = vectors("ppo_clip")
    keys = ("log_prob_new", "log_prob_old", "advantage")
    tensors = [torch.tensor(data[key], dtype=torch.float64) for key in keys]
    losses = group_policy_loss(*tensors, reduction="none", **options)
    expected = torch.tensor(data[name]["loss_per_sample"], dtype=torch.float64)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-12)
    loss = group_policy_loss(*tensors, reduction="dapo", **options)
    assert float(loss) == pytest.approx(data[name]["loss"], abs=1e-12)


def one_step(ratio, advantage, **options):
    log_prob = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    loss = group_policy_loss(log_prob, torch.zeros_like(log_prob), torch.full_like(log_prob, advantage), **options)
    loss.backward()
    return float(loss.detach()), float(log_prob.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "options", "loss", "gradient"),
    [
        (1.1, 2.0, {}, -2.2, -2.2),  # inside: d(r A) / d log pi = r A
        (1.5, 2.0, {}, -2.4, 0.0),  # above, and better: held
        (1.5, -2.0, {}, 3.0, 3.0),  # above, and worse: may return
        (0.5, -2.0, {}, 1.6, 0.0),  # below, and worse: held
        (0.5, 2.0, {}, -1.0, -1.0),  # below, and better: may return
        (1.25, 2.0, {"clip_epsilon_high": 0.28}, -2.5, -2.5),  # clip-higher leaves more room above
        (0.75, -2.0, {"clip_epsilon_high": 0.28}, 1.6, 0.0),  # and none below
        (9.0, -2.0, {}, 18.0, 18.0),  # without a bound
        (9.0, -2.0, {"delta": 4.0}, 8.0, 0.0),  # two-sided
        (3.0, -2.0, {"delta": 4.0}, 6.0, 6.0),
        (9.0, 2.0, {"delta": 4.0}, -2.4, 0.0),  # the bound of the other sign changes nothing
        (1.5, 2.0, {"kind": "reinforce"}, -2.0 * math.log(1.5), -2.0),
        (1.5, 2.0, {"kind": "cispo"}, -1.5 * 2.0 * math.log(1.5), -3.0),  # the weight has no gradient of its own
        (9.0, 2.0, {"kind": "cispo"}, -5.0 * 2.0 * math.log(9.0), -10.0),
        # 4 / t sigmoid(t (r - 1)) A, of gradient 4 sigmoid (1 - sigmoid) r A
        (1.0, 2.0, {"kind": "sapo"}, -4.0, -2.0),
        (1.5, 2.0, {"kind": "sapo"}, -4.0 * 0.62245933 * 2.0, -4.0 * 0.62245933 * 0.37754067 * 1.5 * 2.0),
        (0.5, -2.0, {"kind": "sapo"}, 4 / 1.05 * 0.37168381 * 2.0, 4.0 * 0.37168381 * 0.62831619 * 0.5 * 2.0),
        (
            1.5,
            2.0,
            {"kind": "sapo", "temperatures": (2.0, 3.0)},
            -2.0 * 0.73105858 * 2.0,
            -4.0 * 0.73105858 * 0.26894142 * 3,
        ),
    ],
)
def test_loss_and_gradient_of_one_step_are_the_hand_computed_numbers(ratio, advantage, options, loss, gradient):
    assert one_step(ratio, advantage, **options) == (pytest.approx(loss), pytest.approx(gradient))


def test_where_the_data_are_the_policys_own_all_kinds_have_the_gradient_of_reinforce():
    log_probs, advantages = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    gradients = []
    for options in (
        {"kind": "reinforce"},
        {"kind": "clip"},
        {"kind": "cispo"},
        {"kind": "clip", "delta": 4.0},
        {"kind": "sapo"},
    ):
        own = log_probs.clone().requires_grad_()
        group_policy_loss(own, log_probs, advantages, **options).backward()
        gradients.append(own.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_a_trajectory_level_ratio_shares_the_gradient_among_its_steps(padded):
    new, mask = padded([[0.1, 0.05, -0.03], [0.02, 0.1]])
    new.requires_grad_()
    advantages = torch.tensor([[1.5], [-0.5]], dtype=torch.float64).expand_as(new)
    group_policy_loss(new, torch.zeros_like(new), advantages, mask, importance_level="trajectory").backward()
    ratios = [math.exp(0.12 / 3), math.exp(0.12 / 2)]
    expected = [[-1.5 * ratios[0] / 3 / 2] * 3, [0.5 * ratios[1] / 2 / 2] * 2 + [0.0]]
    torch.testing.assert_close(new.grad, torch.tensor(expected, dtype=torch.float64))


def test_the_gradient_reaches_only_the_new_log_probabilities():
    new, old, advantages, entropy = tensors = [torch.randn(4, 5, requires_grad=True) for _ in range(4)]
    group_policy_loss(new, old, advantages, entropy=entropy, top_entropy_fraction=0.5).backward()
    assert new.grad.abs().sum() > 0
    assert all(tensor.grad is None for tensor in tensors[1:])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_of_minibatches_add_up_to_the_loss_of_the_update(example, reduction):
    _, new, old, _, advantages, mask = example
    options = {"reduction": reduction, "max_length": 6}
    whole = group_policy_loss(new, old, advantages, mask, **options)
    normalizer = int(mask.sum()) if reduction == "dapo" else len(mask)
    parts = [
        group_policy_loss(new[rows], old[rows], advantages[rows], mask[rows], **options, normalizer=normalizer)
        for rows in ([0, 3], [1], [2])
    ]
    torch.testing.assert_close(sum(parts), whole)
    weights = step_weights(mask, **options, dtype=torch.float64)
    flat = torch.randperm(int(mask.sum()))  # shuffled steps without padding, three at a time
    new, old, advantages, weights = (tensor[mask][flat].split(3) for tensor in (new, old, advantages, weights))
    parts = [
        (weights[index] * group_policy_loss(new[index], old[index], advantages[index], reduction="none")).sum()
        for index in range(len(new))
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_padding_and_padded_trajectories_change_nothing(example, reduction):
    _, new, old, _, advantages, mask = example
    options = {"reduction": reduction, "max_length": 6}
    expected = group_policy_loss(new[:, :4], old[:, :4], advantages[:, :4], mask[:, :4], **options)

    def wider(tensor, value):
        return torch.nn.functional.pad(tensor, (0, 2, 0, 3), value=value)

    arguments = [wider(new, math.nan).requires_grad_(), wider(old, math.inf), wider(advantages, math.nan)]
    loss = group_policy_loss(*arguments, wider(mask, False), **options)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    gradient = arguments[0].grad
    assert gradient.isfinite().all()
    assert (gradient[~wider(mask, False)] == 0).all()


def test_weights_are_the_hand_computed_numbers():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    third = 1 / 3
    torch.testing.assert_close(step_weights(mask), torch.tensor([[0.25, 0.25, 0], [0.5, 0, 0], [0, 0, 0]]))
    dapo = step_weights(mask, reduction="dapo")
    torch.testing.assert_close(dapo, torch.tensor([[third, third, 0], [third, 0, 0], [0, 0, 0]]))
    dr_grpo = step_weights(mask, reduction="dr_grpo", max_length=5)
    torch.testing.assert_close(dr_grpo, torch.tensor([[0.1, 0.1, 0], [0.1, 0, 0], [0, 0, 0]]))
    assert torch.equal(step_weights(mask, reduction="none"), mask.float())
    assert step_weights(torch.zeros(2, 3, dtype=torch.bool)).sum() == 0


@pytest.mark.parametrize("reduction", ["grpo", "dapo"])
def test_no_mask_means_that_all_steps_are_valid(reduction):
    tensors = [torch.randn(4, 5) for _ in range(3)]
    full = torch.ones(4, 5, dtype=torch.bool)
    torch.testing.assert_close(
        group_policy_loss(*tensors, reduction=reduction), group_policy_loss(*tensors, full, reduction=reduction)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ppo"}, "kind must be one of clip, reinforce, cispo, sapo, got 'ppo'"),
        (
            {"importance_level": "token"},
            "importance_level must be one of step, trajectory, trajectory_step, got 'token'",
        ),
        ({"clip_epsilon": -0.1}, "clip_epsilon must be at least 0, got -0.1"),
        ({"clip_epsilon_high": -0.1}, "clip_epsilon_high must be None or at least 0, got -0.1"),
        ({"delta": 1.2}, r"delta must be above the upper clip 1.2, got 1.2; it is a ratio"),
        ({"delta": 1.25, "clip_epsilon_high": 0.28}, "delta must be above the upper clip 1.28, got 1.25"),
        ({"delta": 4.0, "kind": "cispo"}, "delta must be None for kind cispo, got 4.0"),
        ({"temperatures": (0.0, 1.0)}, r"temperatures must be above 0, got \(0.0, 1.0\)"),
        ({"off_policy_threshold": 0.0}, "off_policy_threshold must be None or above 0, in nats, got 0.0"),
        ({"top_entropy_fraction": 0.0}, r"top_entropy_fraction must be in \(0, 1\], got 0.0"),
        ({"top_entropy_fraction": 0.5}, "top_entropy_fraction=0.5 needs entropy, got None"),
        ({"reduction": "mean"}, "reduction must be one of grpo, dapo, dr_grpo, none, got 'mean'"),
        ({"reduction": "dr_grpo"}, "reduction dr_grpo needs max_length of at least 1, got None"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        group_policy_loss(torch.zeros(4, 5), torch.zeros(4, 5), torch.zeros(4, 5), **options)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 5), (4, 5), (4,)), {}, r"advantages must have the shape of log_probs \(4, 5\), got \(4,\)"),
        (((4, 5), (4, 5), (4, 5, 1)), {}, r"advantages must have the shape .* got \(4, 5, 1\)"),
        (((4, 5), (5, 4), (4, 5)), {}, r"old_log_probs must have the shape .* got \(5, 4\)"),
        (((6,), (6,), (6,)), {}, r"reduction grpo needs trajectories \[P, T\], got a flat batch \(6,\)"),
        (((6,), (6,), (6,)), {"importance_level": "trajectory"}, r"needs trajectories \[P, T\], got \(6,\)"),
        (
            ((6,), (6,), (6,)),
            {"off_policy_threshold": 0.5},
            r"off_policy_threshold needs trajectories \[P, T\], got \(6,\)",
        ),
    ],
)
def test_shapes_that_would_broadcast_are_refused(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        group_policy_loss(*(torch.zeros(shape) for shape in shapes), **options)
