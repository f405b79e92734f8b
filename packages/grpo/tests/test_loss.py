"""The loss module: the formula on what a policy says of a batch, padded or flat."""

import copy
import io
import math
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.distributions import Categorical

from tesserl_grpo import GRPOLoss, flatten_steps, group_policy_loss, kl_estimate, step_weights
from tesserl_policy import ReferencePolicy, categorical_kl

KINDS = {
    "clip": {},
    "clip-higher": {"clip_epsilon": 0.1, "clip_epsilon_high": 0.28},
    "two-sided": {"delta": 1.3},
    "reinforce": {"kind": "reinforce"},
    "cispo": {"kind": "cispo", "clip_epsilon_high": 1.2},
    "gspo": {"importance_level": "trajectory", "clip_epsilon": 0.05},
    "gspo-token": {"importance_level": "trajectory_step", "clip_epsilon": 0.05},
    "sapo": {"kind": "sapo", "temperatures": (1.0, 1.2)},
    "near policy": {"off_policy_threshold": 0.1},
    "top entropy": {"top_entropy_fraction": 0.4},
}
REDUCTIONS = {"grpo": {}, "dapo": {}, "dr_grpo": {"max_length": 11}}


def gradients(loss, batch):
    loss.zero_grad()
    losses = loss(batch)
    sum(value for key, value in losses.items() if key.startswith("loss")).backward()
    return losses.detach(), [parameter.grad.clone() for parameter in loss.parameters()]


def evaluate(policy, batch):
    """Log-probabilities and entropies of a batch without padding."""
    distribution = policy.distribution(*policy.policy_parameters(batch["observation"]))
    return distribution.log_prob(batch["action"]), distribution.entropy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_losses_and_metrics_are_the_formulas_on_what_the_policy_says(policy, make_batch, kind, reduction):
    batch, options = make_batch((4, 4, 4)), KINDS[kind]
    terms = {"kl_coef": 0.3, "entropy_coef": 0.02, "reduction": reduction, **REDUCTIONS[reduction]}
    losses = GRPOLoss(policy, **options, **terms)(batch)
    log_probs, entropy = evaluate(policy, batch)
    old, advantages = batch["action_log_prob"], batch["advantage"].squeeze(-1)
    expected = group_policy_loss(
        log_probs, old, advantages, entropy=entropy, reduction=reduction, **options, **REDUCTIONS[reduction]
    )
    torch.testing.assert_close(losses["loss_objective"], expected)
    weights = step_weights(batch["mask"], reduction=reduction, **REDUCTIONS[reduction])
    divergence = kl_estimate(log_probs, batch["reference_log_prob"], kind="k3")
    torch.testing.assert_close(losses["loss_entropy"], -0.02 * (entropy * weights).sum())
    torch.testing.assert_close(losses["loss_kl"], 0.3 * (divergence * weights).sum())
    metrics = {"entropy": entropy.mean(), "kl": divergence.mean(), "kl_approx": (old - log_probs).mean()}
    for name, value in metrics.items():
        torch.testing.assert_close(losses[name], value)
        assert not losses[name].requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("padding", [math.nan, math.inf, 1e6])
def test_a_padded_step_moves_no_loss_no_metric_and_no_gradient(policy, make_batch, kind, reduction, padding):
    terms = {"kl_coef": 0.3, "entropy_coef": 0.02, "reduction": reduction, **REDUCTIONS[reduction]}
    loss = GRPOLoss(policy, **KINDS[kind], **terms)
    expected = gradients(loss, make_batch((4, 2, 3, 1)))
    wider = make_batch((4, 2, 3, 1), longest=9, padding=padding)
    more = torch.cat([wider, wider[:1].clone()])  # and a trajectory that is padding altogether
    more["mask"][-1] = False
    for batch in (make_batch((4, 2, 3, 1), padding=padding), wider, more):
        found = gradients(loss, batch)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("gspo", "gspo-token", "near policy")])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_flat_and_padded_batches_give_the_same_numbers(policy, make_batch, kind, reduction):
    terms = {"kl_coef": 0.3, "entropy_coef": 0.02, "reduction": reduction, **REDUCTIONS[reduction]}
    loss = GRPOLoss(policy, **KINDS[kind], **terms)
    batch = make_batch((4, 2, 3, 1), padding=math.nan)
    expected = gradients(loss, batch)
    batch["step_weight"] = step_weights(batch["mask"], reduction=reduction, **REDUCTIONS[reduction])
    flat = flatten_steps(batch)
    shuffled = flat[torch.randperm(len(flat))]
    batch["step_weight"][~batch["mask"]] = math.nan
    for data in (batch, flat, shuffled):
        found = gradients(loss, data)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])


def test_minibatches_with_weights_add_up_to_the_update(policy, make_batch):
    loss, batch = GRPOLoss(policy, entropy_coef=0.02), make_batch((4, 2, 3, 1))
    whole = loss(batch)
    batch["step_weight"] = step_weights(batch["mask"])
    for parts in (flatten_steps(batch).split(3), [batch[[3, 1]], batch[[0, 2]]]):
        losses = [loss(part) for part in parts]
        for key in ("loss_objective", "loss_entropy"):
            torch.testing.assert_close(sum(each[key] for each in losses), whole[key])


@pytest.mark.parametrize("kl_kind", ["k2", "k3", "exact"])
def test_directly_and_through_torchrls_actor_it_is_the_same(policy, as_actor, make_batch, kl_kind):
    batch = make_batch((4, 2, 3, 1)).exclude("reference_log_prob")
    results = []
    for actor in (policy, as_actor(policy)):
        reference = ReferencePolicy(actor)
        with torch.no_grad():
            for parameter in reference.network.parameters():
                parameter.mul_(0.5)
        loss = GRPOLoss(actor, entropy_coef=0.02, kl_coef=0.3, kl_kind=kl_kind, reference=reference)
        results.append(gradients(loss, batch))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])
    assert "logits" not in batch


def test_torchrls_mask_is_obeyed_alone_and_beside_ours(policy, make_batch):
    loss, batch = GRPOLoss(policy), make_batch((4, 2, 3, 1), padding=math.nan)
    expected = loss(batch)
    both = make_batch((4, 2, 3, 3), padding=math.nan)
    both["mask"][3, 1:] = False
    both["collector", "mask"] = make_batch((4, 4, 4, 4))["mask"]
    torch.testing.assert_close(loss(both), expected)
    both["collector", "mask"] = both["mask"]
    both["mask"] = torch.ones_like(both["mask"])
    torch.testing.assert_close(loss(both), expected)
    batch["collector", "mask"] = batch.pop("mask").unsqueeze(-1)
    torch.testing.assert_close(loss(batch), expected)


def test_clip_metrics_are_the_hand_computed_fractions(policy, make_batch):
    batch = make_batch((4, 1))
    log_probs, _ = evaluate(policy, batch.select("observation").set("action", batch["action"].clamp(min=0)))
    ratios, advantages = [0.5, 0.5, 1.5, 1.1], [-1.0, 1.0, 1.0, 1.0]
    batch["action_log_prob"][0] = log_probs[0].detach() - torch.tensor(ratios).log()
    batch["action_log_prob"][1, 0] = log_probs[1, 0].detach() - math.log(1.5)
    batch["advantage"][0] = torch.tensor(advantages).unsqueeze(-1)
    batch["advantage"][1, 0] = -1.0
    losses = GRPOLoss(policy)(batch)
    names = ["low_mean", "high_mean", "region_mean"]  # below with A < 0: one of five; above with A > 0: one of five
    assert [float(losses[f"clip_ratio/{name}"]) for name in names] == [pytest.approx(x) for x in (0.2, 0.2, 0.4)]
    cispo = GRPOLoss(policy, kind="cispo", clip_epsilon_high=1.3)(batch)
    assert float(cispo["cispo_clip_ratio"]) == pytest.approx(0.2)
    assert not [key for key, _ in cispo.items() if key.startswith("clip_ratio")]


def test_a_weighted_estimate_has_the_value_and_the_gradient_of_the_ratio(policy, make_batch):
    batch = make_batch((4, 4, 4))
    log_probs = evaluate(policy, batch)[0]
    estimate = kl_estimate(log_probs, batch["reference_log_prob"], kind="k3")
    ratio = (log_probs - batch["action_log_prob"]).exp()
    expected = (ratio * estimate).mean()
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    loss = GRPOLoss(policy, kl_coef=1.0, kl_importance_weighted=True, reduction="dapo")(batch)["loss_kl"]
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(
        torch.autograd.grad(loss, parameters, allow_unused=True),
        torch.autograd.grad(expected, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kl_coef", "entropy_coef"), [(0.0, 0.0), (0.1, 0.1)])
@pytest.mark.parametrize("log_metrics", [True, False])
def test_out_keys_are_what_a_call_returns(policy, make_batch, kind, kl_coef, entropy_coef, log_metrics):
    options = {"kl_coef": kl_coef, "entropy_coef": entropy_coef, "log_metrics": log_metrics}
    loss, batch = GRPOLoss(policy, **KINDS[kind], **options), make_batch((4, 2))
    losses = loss(batch)
    assert sorted(losses.keys()) == sorted(loss.out_keys)
    full = GRPOLoss(policy, **KINDS[kind], **{**options, "log_metrics": True})(batch)
    torch.testing.assert_close(losses["loss_objective"], full["loss_objective"])


def test_without_reduction_it_keeps_the_steps(policy, make_batch):
    batch = make_batch((4, 2, 3, 1))
    losses = GRPOLoss(policy, reduction="none", entropy_coef=0.02)(batch)
    for key in ("loss_objective", "loss_entropy"):
        assert losses[key].shape == (4, 4)
        assert (losses[key][~batch["mask"]] == 0).all()
    weighted = batch.copy().set("step_weight", torch.rand(4, 4))
    torch.testing.assert_close(GRPOLoss(policy, reduction="none", entropy_coef=0.02)(weighted), losses)
    mean = GRPOLoss(policy, reduction="dapo")(batch)["loss_objective"]
    torch.testing.assert_close(losses["loss_objective"].sum() / 10, mean)


def test_keys_can_be_renamed(policy, make_batch):
    loss, batch = GRPOLoss(policy, kl_coef=0.1), make_batch((4, 2, 3, 1), padding=math.nan)
    expected = loss(batch)
    names = {
        "action": "choice",
        "sample_log_prob": "then",
        "advantage": ("over", "others"),
        "mask": "valid",
        "reference_log_prob": "there",
    }
    loss.set_keys(**names)
    assert loss.in_keys == ["observation", "choice", "then", ("over", "others")]
    for old, new in names.items():
        batch.rename_key_({"sample_log_prob": "action_log_prob"}.get(old, old), new)
    torch.testing.assert_close(loss(batch), expected)


def test_can_be_called_with_the_entries_as_arguments(policy, make_batch):
    loss, flat = GRPOLoss(policy, reduction="dapo"), flatten_steps(make_batch((4, 2)))
    values = loss(**{key: flat[key] for key in loss.in_keys})
    expected = loss(flat)
    for key, value in zip(loss.out_keys, values, strict=True):
        torch.testing.assert_close(value, expected[key])


def test_nothing_but_the_policy_gets_a_gradient(policy, make_batch):
    loss = GRPOLoss(policy, kl_coef=0.3, entropy_coef=0.02, reference=ReferencePolicy(policy))
    batch = make_batch((4, 2, 3, 1)).exclude("reference_log_prob")
    batch["step_weight"] = step_weights(batch["mask"])
    constants = [batch[key].requires_grad_() for key in ("advantage", "action_log_prob", "step_weight")]
    losses = loss(batch)
    sum(value for key, value in losses.items() if key.startswith("loss")).backward()
    assert all(constant.grad is None for constant in constants)
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())
    assert all(parameter.grad is None for parameter in loss.reference.parameters())
    assert [id(each) for each in loss.parameters()] == [id(each) for each in policy.parameters()]


class Rescaled(nn.Module):
    """A policy whose log-probabilities are NaN where it is shown NaN, and so are their gradients."""

    in_keys = ("observation",)

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def get_dist(self, tensordict):
        assert tensordict["observation"].isfinite().all()
        return self.policy.distribution(*self.policy.policy_parameters(tensordict["observation"]))


def test_any_module_with_get_dist_will_do(policy, make_batch):
    batch = make_batch((4, 2, 3, 1), padding=math.nan)
    torch.testing.assert_close(GRPOLoss(Rescaled(policy))(batch), GRPOLoss(policy)(batch))


class Recurrent(nn.Module):
    """A policy with a memory: what it does at a step depends on the steps before."""

    in_keys = ("observation",)

    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.GRU(5, 7, batch_first=True), nn.Linear(7, 3)

    def policy_parameters(self, observation):
        return (self.head(self.memory(observation)[0]),)

    def distribution(self, logits):
        return Categorical(logits=logits, validate_args=False)


def test_a_policy_with_a_memory_keeps_its_sequences_whole(make_batch):
    torch.manual_seed(0)
    loss = GRPOLoss(Recurrent(), entropy_coef=0.02)
    expected = gradients(loss, make_batch((4, 2, 3, 1)))
    found = gradients(loss, make_batch((4, 2, 3, 1), longest=9, padding=math.nan))
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("options", [{}, {"kl_coef": 0.1, "entropy_coef": 0.02}, {"importance_level": "trajectory"}])
def test_bfloat16_is_finite_and_close(policy, make_batch, options):
    batch = make_batch((11,) * 9)
    batch["action_log_prob"], batch["reference_log_prob"] = [evaluate(policy, batch)[0].detach()] * 2
    loss = GRPOLoss(policy, **options)
    expected = loss(batch)["loss_objective"]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(batch)["loss_objective"]
    loss.to(torch.bfloat16)
    narrow = loss(batch.apply(lambda entry: entry.bfloat16() if entry.is_floating_point() else entry))
    narrow["loss_objective"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in policy.parameters())
    found = torch.stack([mixed.float(), narrow["loss_objective"].float()])
    torch.testing.assert_close(found, expected.expand(2), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kind", ["clip", "cispo", "sapo", "gspo", "gspo-token", "near policy", "top entropy"])
def test_compiles_without_a_graph_break(policy, make_batch, kind):
    loss, batch = GRPOLoss(policy, **KINDS[kind], kl_coef=0.3, entropy_coef=0.02), make_batch((4, 2, 3, 1))
    compiled = torch.compile(lambda tensordict: loss(tensordict)["loss_objective"], fullgraph=True, backend="aot_eager")
    value = compiled(batch.clone())
    value.backward()
    torch.testing.assert_close(value, loss(batch)["loss_objective"])


def torch_saved(loss):
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("change", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss)), torch_saved])
@pytest.mark.parametrize("face", ["direct", "torchrl"])
def test_a_copy_has_the_values_and_nothing_else_of_the_original(policy, as_actor, make_batch, change, face):
    actor = policy if face == "direct" else as_actor(policy)
    loss = GRPOLoss(actor, kl_coef=0.3, reference=ReferencePolicy(actor, interval=2))
    batch = make_batch((4, 2, 3, 1)).exclude("reference_log_prob")
    twin = change(loss)
    expected = loss(batch)
    torch.testing.assert_close(twin(batch), expected)
    with torch.no_grad():
        for entry in twin.state_dict().values():
            entry.zero_()
    torch.testing.assert_close(loss(batch), expected)


def test_a_state_dict_brings_policy_and_reference_back(policy, make_batch):
    batch = make_batch((4, 2, 3, 1)).exclude("reference_log_prob")
    loss = GRPOLoss(policy, kl_coef=0.3, reference=ReferencePolicy(policy))
    other = copy.deepcopy(loss)
    with torch.no_grad():
        for number, entry in enumerate(other.state_dict().values()):
            entry.copy_(entry * 1.1 + number)
    loss.load_state_dict(other.state_dict())
    torch.testing.assert_close(loss(batch), other(batch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_coef": -0.1}, "kl_coef must be at least 0, got -0.1"),
        (
            {"kl_kind": "k1", "kl_coef": 0.1},
            "kl_kind of a loss must be one of k2, k3, exact, got 'k1'; the expectation",
        ),
        (
            {"kl_kind": "exact", "kl_importance_weighted": True},
            "kl_importance_weighted must be False for kl_kind exact, got True",
        ),
        ({"kl_kind": "exact", "kl_coef": 0.1}, r"kl_kind exact needs reference=ReferencePolicy\(actor_network\)"),
        ({"kind": "ppo"}, "kind must be one of"),
        ({"reduction": "dr_grpo"}, "reduction dr_grpo needs max_length"),
        ({"delta": 1.1}, "delta must be above the upper clip 1.2, got 1.1"),
    ],
)
def test_options_out_of_range_are_refused(policy, options, message):
    with pytest.raises(ValueError, match=message):
        GRPOLoss(policy, **options)


def test_a_policy_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"or have in_keys, policy_parameters and distribution, got Linear; wrap a"):
        GRPOLoss(nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("options", "key", "entry", "error", "message"),
    [
        ({}, "advantage", None, KeyError, "expected the key 'advantage', the batch has .* rename keys with set_keys"),
        ({}, "observation", None, KeyError, "expected the key 'observation'"),
        (
            {},
            "advantage",
            torch.zeros(4),
            ValueError,
            r"advantage must have the shape .*\(4, 4\), .* got \(4,\); expand",
        ),
        ({}, "mask", torch.zeros(4, dtype=torch.bool), ValueError, r"mask must have the shape .* got \(4,\)"),
        ({}, "action", torch.zeros(4, 4, 1).long(), ValueError, r"one log-probability per step .*\(4, 4, 4\) for"),
        ({"kl_coef": 0.1}, "reference_log_prob", None, ValueError, "kl_coef=0.1 needs a reference; give reference="),
    ],
)
def test_bad_batches_are_refused(policy, make_batch, options, key, entry, error, message):
    batch = make_batch((4, 4, 4, 4))
    batch = batch.exclude(key) if entry is None else TensorDict({**dict(batch.items()), key: entry}, [4])
    with pytest.raises(error, match=message):
        GRPOLoss(policy, **options)(batch)


def test_a_flat_batch_asks_for_weights_and_for_trajectories(policy, make_batch):
    flat = flatten_steps(make_batch((4, 2)))
    with pytest.raises(ValueError, match=r"reduction grpo needs trajectories \[P, T\], got a flat batch \(6,\); take"):
        GRPOLoss(policy)(flat)
    with pytest.raises(ValueError, match=r"importance_level trajectory needs trajectories \[P, T\], got \(6,\)"):
        GRPOLoss(policy, importance_level="trajectory")(flat)


def test_the_exact_divergence_is_that_of_the_reference(policy, make_batch):
    batch = make_batch((4, 4, 4)).exclude("reference_log_prob")
    reference = ReferencePolicy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(2)
    losses = GRPOLoss(policy, kl_coef=0.3, kl_kind="exact", reference=reference, reduction="dapo")(batch)
    logits = [each.policy_parameters(batch["observation"])[0] for each in (policy, reference.network)]
    expected = categorical_kl(*(each.log_softmax(dim=-1) for each in logits)).mean()
    assert expected > 0.01
    torch.testing.assert_close(losses["loss_kl"], 0.3 * expected)
    torch.testing.assert_close(losses["kl"], expected.detach())
