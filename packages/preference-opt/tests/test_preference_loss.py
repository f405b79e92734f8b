"""Losses of pairs against reference numbers, and against their papers' formulas written another way."""

import json
import math
from pathlib import Path

import pytest
import torch

from tesserl_preference_opt import preference_loss, sum_log_probs
from tesserl_preference_opt.functional import f_divergence_score
from tesserl_preference_opt.functional.pairwise import (
    AVERAGED_LOSS_TYPES,
    DIFFERENCE_LOSS_TYPES,
    LOSS_TYPES,
    SMOOTHED_LOSS_TYPES,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "dpo.json").read_text())
# names of the vectors that are not loss types, and what they stand for
ALIASES = {
    "cdpo": {"loss_type": "sigmoid"},
    "ipo_sum": {"loss_type": "ipo"},
    "ipo_length_normalised": {"loss_type": "ipo", "lengths": True},
    "discopop_tau0.05": {"loss_type": "discopop", "discopop_tau": 0.05},
    "reference_free_sigmoid": {"loss_type": "sigmoid", "reference": False},
    "simpo_gamma0.5": {"loss_type": "simpo", "simpo_gamma": 0.5},
    "orpo_or_term": {"loss_type": "orpo"},
    "f_forward_kl_sigmoid": {"loss_type": "sigmoid", "f_divergence": "forward_kl"},
    "f_js_sigmoid": {"loss_type": "sigmoid", "f_divergence": "js_divergence"},
}
SMOOTHED = {"cdpo", "robust", "exo_pair", "aot", "aot_unpaired"}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def padded(rows):
    """Rows of unequal length, padded by NaN, and their mask."""
    longest = max(map(len, rows))
    return f64([row + [math.nan] * (longest - len(row)) for row in rows]), torch.tensor(
        [[step < len(row) for step in range(longest)] for row in rows]
    )


def sums(name):
    return sum_log_probs(*padded(VECTORS[name]))


POLICY = [sums("policy_chosen")[0], sums("policy_rejected")[0]]
REFERENCE = [sums("ref_chosen")[0], sums("ref_rejected")[0]]
LENGTHS = [sums("policy_chosen")[1], sums("policy_rejected")[1]]


def test_sums_over_valid_steps_and_lengths_are_those_of_the_reference():
    for name, expected in zip(("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected"), "wlwl", strict=True):
        total, length = sums(name)
        key = f"{'pi' if name.startswith('policy') else 'ref'}_{expected}"
        torch.testing.assert_close(total, f64(VECTORS["sums"][key]), rtol=0, atol=1e-12)
        assert length.tolist() == VECTORS["lengths"][expected]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"beta{case['beta']}")
@pytest.mark.parametrize("name", [name for name in VECTORS["cases"][0]["losses"] if not name.startswith("kto")])
def test_losses_are_those_of_the_reference(case, name):
    options = {"loss_type": name, **ALIASES.get(name, {})}
    reference = REFERENCE if options.pop("reference", True) else (None, None)
    if options.pop("lengths", False) or options["loss_type"] in ("sigmoid_norm", "simpo", "orpo"):
        options |= {"chosen_lengths": LENGTHS[0], "rejected_lengths": LENGTHS[1]}
    if name in SMOOTHED:
        options["label_smoothing"] = case["label_smoothing"]
    loss = preference_loss(*POLICY, *reference, beta=case["beta"], **options)
    expected = case["losses"][name]
    torch.testing.assert_close(loss, f64(expected["per_pair"]), rtol=0, atol=1e-12)
    assert loss.mean().item() == pytest.approx(expected["mean"], abs=1e-12)


def test_the_gradient_is_that_of_the_reference():
    chosen = POLICY[0].clone().requires_grad_()
    preference_loss(chosen, POLICY[1], *REFERENCE, beta=0.5).mean().backward()
    torch.testing.assert_close(chosen.grad, f64(VECTORS["grad_sigmoid_wrt_pi_w_beta0p5"]), rtol=0, atol=1e-12)


def sigmoid(x):
    return 0.5 * (1 + math.tanh(x / 2))


def log1pexp(x):
    return math.log1p(math.exp(x))


def sorted_pairs(first, second):
    return list(zip(sorted(first), sorted(second), strict=True))


def by_the_paper(name, pw, pl, rw, rl, nw, nl, beta, eps):
    """Each loss from probabilities and ratios, by plain arithmetic, as its paper states it."""
    pairs = list(zip(pw, pl, rw, rl, nw, nl, strict=True))
    ratio = [((a - c), (b - d)) for a, b, c, d, _, _ in pairs]
    margin = [beta * (w - d) for w, d in ratio]
    prefer = [sigmoid(m) for m in margin]  # Bradley-Terry, under implicit rewards
    if name == "sigmoid":
        return [-(1 - eps) * math.log(p) - eps * math.log(1 - p) for p in prefer]
    if name == "robust":  # the estimator whose mean over flips is the clean loss
        return [((1 - eps) * log1pexp(-m) - eps * log1pexp(m)) / (1 - 2 * eps) for m in margin]
    if name == "hinge":
        return [max(0.0, 1 - m) for m in margin]
    if name == "ipo":  # eq. 17 times 1: (h - 1 / (2 tau))^2
        return [(w / n - d / m - 0.5 / beta) ** 2 for (w, d), n, m in zip(ratio, nw, nl, strict=True)]
    if name == "sigmoid_norm":
        return [log1pexp(-beta * (w / n - d / m)) for (w, d), n, m in zip(ratio, nw, nl, strict=True)]
    if name == "exo_pair":  # KL of (p, 1 - p) to (1 - eps, eps)
        return [p * math.log(p / (1 - eps)) + (1 - p) * math.log((1 - p) / eps) for p in prefer]
    if name == "nca_pair":
        return [log1pexp(-beta * w) + (log1pexp(beta * w) + log1pexp(beta * d)) / 2 for w, d in ratio]
    if name == "bco_pair":  # a classifier of good and bad
        return [-math.log(sigmoid(beta * w)) - math.log(1 - sigmoid(beta * d)) for w, d in ratio]
    if name == "sppo_hard":  # eq. 4.7 in units of beta: (r / beta - (P - 1/2) / beta)^2
        return [((beta * w - 0.5) ** 2 + (beta * d + 0.5) ** 2) / beta**2 for w, d in ratio]
    if name == "apo_zero":
        return [sigmoid(-beta * w) + sigmoid(beta * d) for w, d in ratio]
    if name == "apo_down":
        return [sigmoid(beta * w) + sigmoid(-m) for (w, _), m in zip(ratio, margin, strict=True)]
    if name == "aot":
        ordered = sorted_pairs(
            [a - b for a, b in zip(pw, pl, strict=True)], [c - d for c, d in zip(rw, rl, strict=True)]
        )
        return [(1 - eps) * log1pexp(beta * (r - p)) + eps * log1pexp(beta * (p - r)) for p, r in ordered]
    if name == "aot_unpaired":
        ordered = sorted_pairs([w for w, _ in ratio], [d for _, d in ratio])
        return [(1 - eps) * log1pexp(beta * (d - w)) + eps * log1pexp(beta * (w - d)) for w, d in ordered]
    if name == "discopop":
        gate = [sigmoid(m / 0.05) for m in margin]
        return [(1 - g) * log1pexp(-m) + g / math.exp(m) for g, m in zip(gate, margin, strict=True)]
    if name == "simpo":
        return [log1pexp(-beta / n * a + beta / m * b + 0.5) for a, b, _, _, n, m in pairs]
    if name == "sft":
        return [-a / n for a, _, _, _, n, _ in pairs]
    odds = [[math.exp(a / n) / (1 - math.exp(a / n)) for a, n in ((a, n), (b, m))] for a, b, _, _, n, m in pairs]
    return [beta * math.log(1 + d / w) for w, d in odds]  # orpo


@pytest.fixture(scope="module")
def random_pairs():
    generator = torch.Generator().manual_seed(5)
    values = [-3 * torch.rand(11, dtype=torch.float64, generator=generator) - 0.1 for _ in range(4)]
    return [*values, *(torch.randint(1, 8, (11,), generator=generator).double() for _ in range(2))]


@pytest.mark.parametrize("name", LOSS_TYPES)
@pytest.mark.parametrize(("beta", "eps"), [(0.3, 0.1), (2.0, 0.25)])
def test_every_loss_is_that_of_its_paper(name, beta, eps, random_pairs):
    smoothing = eps if name in SMOOTHED_LOSS_TYPES else 0.0
    loss = preference_loss(
        *random_pairs[:4],
        loss_type=name,
        beta=beta,
        label_smoothing=smoothing,
        chosen_lengths=random_pairs[4],
        rejected_lengths=random_pairs[5],
    )
    expected = by_the_paper(name, *(each.tolist() for each in random_pairs), beta, eps)
    torch.testing.assert_close(loss, f64(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSS_TYPES)
def test_every_gradient_is_that_of_finite_differences(name, random_pairs):
    def loss(chosen, rejected):
        return preference_loss(
            chosen,
            rejected,
            *random_pairs[2:4],
            loss_type=name,
            beta=0.7,
            label_smoothing=0.1 if name in SMOOTHED_LOSS_TYPES else 0.0,
            chosen_lengths=random_pairs[4],
            rejected_lengths=random_pairs[5],
        )

    inputs = [each.clone().requires_grad_() for each in random_pairs[:2]]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", sorted(set(LOSS_TYPES) - {"apo_down", "discopop"}))
def test_descent_raises_the_chosen_and_lowers_the_rejected(name):
    # from the reference; apo_down lowers both, and DiscoPOP goes the wrong way there
    log_probs = [torch.full((3,), -2.0, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    reference = [torch.full((3,), -2.0, dtype=torch.float64)] * 2
    lengths = torch.full((3,), 4.0)
    smoothing = 0.1 if name in SMOOTHED_LOSS_TYPES else 0.0
    preference_loss(
        *log_probs,
        *reference,
        loss_type=name,
        label_smoothing=smoothing,
        chosen_lengths=lengths,
        rejected_lengths=lengths,
    ).sum().backward()
    assert (log_probs[0].grad < 0).all()
    assert name == "sft" or (log_probs[1].grad > 0).all()  # sft does not look at the rejected


def test_discopop_goes_the_wrong_way_from_the_reference_and_the_right_way_further_out():
    def slope(margin):
        chosen = f64([margin]).requires_grad_()
        preference_loss(chosen, f64([0.0]), loss_type="discopop", beta=1.0).backward()
        return chosen.grad.item()

    assert slope(0.0) == pytest.approx(5 * (1 - math.log(2)) - 0.75)  # the blend turns faster than the losses fall
    assert slope(0.5) < 0
    assert slope(-0.5) < 0


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "sigmoid_norm"])
def test_swapping_the_sides_flips_the_sign_of_the_gradient_at_no_margin(name):
    def gradient(swap):
        first = torch.tensor([-2.0, -3.0], dtype=torch.float64, requires_grad=True)
        sides = (first, first.detach())[:: -1 if swap else 1]
        lengths = torch.tensor([3.0, 4.0])
        preference_loss(
            *sides, *(first.detach(),) * 2, loss_type=name, chosen_lengths=lengths, rejected_lengths=lengths
        ).sum().backward()
        return first.grad

    torch.testing.assert_close(gradient(True), -gradient(False))
    assert (gradient(False) != 0).all()


def test_swapping_the_sides_of_a_hinge_beyond_its_margin_gives_loss_on_one_side_only():
    options = {"loss_type": "hinge", "beta": 1.0}
    assert preference_loss(f64([-1.0]), f64([-4.0]), f64([0.0]), f64([0.0]), **options).item() == 0.0
    assert preference_loss(f64([-4.0]), f64([-1.0]), f64([0.0]), f64([0.0]), **options).item() == 4.0


def test_half_wrong_labels_say_nothing_at_no_margin_and_pull_back_to_it_elsewhere():
    def gradient(margin):
        chosen = f64([margin - 1.0]).requires_grad_()
        preference_loss(chosen, f64([-1.0]), f64([0.0]), f64([0.0]), label_smoothing=0.5).sum().backward()
        return chosen.grad.item()

    assert gradient(0.0) == 0.0
    assert gradient(2.0) > 0
    assert gradient(-2.0) < 0


def test_robust_loss_is_unbiased_under_flipped_labels(random_pairs):
    chosen, rejected, *reference = random_pairs[:4]
    options = {"beta": 0.8}
    kept = preference_loss(chosen, rejected, *reference, loss_type="robust", label_smoothing=0.2, **options)
    flipped = preference_loss(rejected, chosen, *reference[::-1], loss_type="robust", label_smoothing=0.2, **options)
    clean = preference_loss(chosen, rejected, *reference, **options)
    torch.testing.assert_close(0.8 * kept + 0.2 * flipped, clean)


def test_the_reference_shifts_the_margin_and_nothing_else(random_pairs):
    chosen, rejected, *reference = random_pairs[:4]
    shifted = preference_loss(chosen + 1.5, rejected + 1.5, *(each + 1.5 for each in reference))
    torch.testing.assert_close(shifted, preference_loss(chosen, rejected, *reference))
    free = preference_loss(chosen, rejected)
    torch.testing.assert_close(free, preference_loss(chosen, rejected, torch.zeros(11), torch.zeros(11)))
    assert not torch.allclose(free, shifted)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
def test_the_alpha_score_is_the_derivative_of_its_divergence(alpha):
    ratio = torch.linspace(-2, 2, 9, dtype=torch.float64)
    u = ratio.exp().requires_grad_()
    # f(u) = (u^alpha - alpha u + alpha - 1) / (alpha (alpha - 1)); f'(u) = (u^(alpha - 1) - 1) / (alpha - 1)
    f = (u**alpha - alpha * u + alpha - 1) / (alpha * (alpha - 1))
    (derivative,) = torch.autograd.grad(f.sum(), u)
    score = f_divergence_score(ratio, "alpha_divergence", alpha=alpha)
    torch.testing.assert_close(score - 1 / (alpha - 1), derivative)


@pytest.mark.parametrize(
    ("kind", "f"),
    [
        ("reverse_kl", lambda u: u * u.log() - u),
        ("forward_kl", lambda u: -u.log()),
        ("js_divergence", lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log() - u * math.log(2)),
    ],
)
def test_scores_are_derivatives_of_their_divergences(kind, f):
    ratio = torch.linspace(-2, 2, 9, dtype=torch.float64)
    u = ratio.exp().requires_grad_()
    (derivative,) = torch.autograd.grad(f(u).sum(), u)
    torch.testing.assert_close(f_divergence_score(ratio, kind), derivative)


def test_alpha_divergence_joins_forward_and_reverse_kl():
    ratio = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for alpha, kind in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        score = f_divergence_score(ratio, "alpha_divergence", alpha=alpha)
        torch.testing.assert_close(score, f_divergence_score(ratio, kind))


def test_scores_of_hopeless_ratios_stay_finite():
    for kind in ("forward_kl", "js_divergence", "alpha_divergence"):
        ratio = torch.tensor([-500.0, 500.0], requires_grad=True)
        score = f_divergence_score(ratio, kind)
        score.sum().backward()
        assert score.isfinite().all()
        assert ratio.grad.isfinite().all()


def test_large_margins_stay_finite():
    for name in sorted(set(LOSS_TYPES) - {"orpo", "discopop"}):  # DiscoPOP has an exponential by design
        chosen = torch.tensor([-900.0, -1.0], requires_grad=True)
        smoothing = 0.1 if name in SMOOTHED_LOSS_TYPES else 0.0
        lengths = torch.tensor([9.0, 9.0])
        loss = preference_loss(
            chosen,
            torch.tensor([-1.0, -900.0]),
            torch.tensor([-1.0, -1.0]),
            torch.tensor([-1.0, -1.0]),
            loss_type=name,
            beta=1.0,
            label_smoothing=smoothing,
            chosen_lengths=lengths,
            rejected_lengths=lengths,
        )
        loss.sum().backward()
        assert loss.isfinite().all(), name
        assert chosen.grad.isfinite().all(), name


@pytest.mark.parametrize("name", sorted(set(LOSS_TYPES) - set(AVERAGED_LOSS_TYPES)))
def test_lengths_change_nothing_where_sums_are_meant(name, random_pairs):
    smoothing = 0.1 if name in SMOOTHED_LOSS_TYPES else 0.0
    options = {"loss_type": name, "label_smoothing": smoothing}
    plain = preference_loss(*random_pairs[:4], **options)
    lengths = {"chosen_lengths": random_pairs[4], "rejected_lengths": random_pairs[5]}
    torch.testing.assert_close(preference_loss(*random_pairs[:4], **options, **lengths), plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "dpo"}, r"loss_type must be one of sigmoid, robust, .*, got 'dpo'"),
        ({"beta": 0.0}, r"beta must be above 0, got 0.0"),
        ({"label_smoothing": 0.6}, r"label_smoothing must be in \[0, 0.5\], got 0.6; above, swap the labels"),
        ({"loss_type": "robust", "label_smoothing": 0.5}, "robust must have a label_smoothing below 0.5, got 0.5"),
        ({"loss_type": "exo_pair"}, "exo_pair must have a label_smoothing above 0, got 0; its paper takes 1e-3"),
        ({"f_divergence": "chi"}, "f_divergence must be one of reverse_kl, .*, got 'chi'"),
        ({"f_divergence": "js_divergence", "loss_type": "nca_pair"}, "f_divergence 'js_divergence' fits sigmoid, "),
        ({"loss_type": "simpo"}, "simpo takes averages, got no lengths; pass chosen_lengths and rejected_lengths"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        preference_loss(*(torch.zeros(4) for _ in range(4)), **options)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"log-probs must have one shape, that of policy_chosen \(4,\), got \(4, 1\)"):
        preference_loss(torch.zeros(4), torch.zeros(4, 1), torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"sums over segments, \[P\], got \(4, 9\); use sum_log_probs"):
        preference_loss(*(torch.zeros(4, 9) for _ in range(4)))


def test_orpo_refuses_densities():
    lengths = torch.ones(2)
    with pytest.raises(
        ValueError, match=r"orpo needs probabilities, got an average log-prob of 1.2: that of a density"
    ):
        preference_loss(
            torch.tensor([1.2, -1.0]),
            torch.tensor([-1.0, -1.0]),
            loss_type="orpo",
            chosen_lengths=lengths,
            rejected_lengths=lengths,
        )


def test_f_divergences_are_for_losses_of_differences_alone():
    assert set(DIFFERENCE_LOSS_TYPES) < set(LOSS_TYPES)
    shift = 0.7  # the normaliser of the optimal policy shifts both scores alike
    for name in sorted(set(DIFFERENCE_LOSS_TYPES) - {"sigmoid_norm"}):
        smoothing = 0.1 if name in SMOOTHED_LOSS_TYPES else 0.0
        both = [
            preference_loss(f64([-1.0 + by]), f64([-2.0 + by]), loss_type=name, label_smoothing=smoothing)
            for by in (0.0, shift)
        ]
        torch.testing.assert_close(*both)
