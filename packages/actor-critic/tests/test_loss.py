"""The loss: numbers by hand, torchrl's loss, masks, precision, compilation, copies and messages."""

import copy
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.objectives import ClipPPOLoss

from tesserl_actor_critic import ActorCritic, PPOLoss

from .conftest import gradients, total

NUMBERS = json.loads((Path(__file__).parent / "vectors" / "ppo_clip.json").read_text())
METRICS = ("entropy", "kl_approx", "clip_fraction", "ESS", "max_ratio", "mean_ratio", "explained_variance")


class Slice(nn.Module):
    """A body or a head that returns some of its inputs, times a weight."""

    in_keys = ("observation",)

    def __init__(self, start, stop):
        super().__init__()
        self.slice = slice(start, stop)
        self.out_features = stop - start
        self.scale = nn.Parameter(torch.ones(stop - start))

    def forward(self, inputs):
        return inputs[..., self.slice] * self.scale


def exact_network():
    """Logits are the first two numbers of the observation, the value is the third."""
    return ActorCritic(
        Slice(0, 3), action_space=2, policy_head=Slice(0, 2), value_head=Slice(2, 3), orthogonal=False
    ).double()


def exact_batch(value, old_value, target):
    log_probs, old, advantage = (
        torch.tensor(NUMBERS[key]).double() for key in ("log_prob_new", "log_prob_old", "advantage")
    )
    columns = [log_probs, torch.log1p(-log_probs.exp()), torch.tensor(value).double()]
    return TensorDict(
        {
            "observation": torch.stack(columns, dim=-1),
            "action": torch.zeros(6, dtype=torch.int64),
            "action_log_prob": old,
            "advantage": advantage.unsqueeze(-1),
            "value_target": torch.tensor(target).double().unsqueeze(-1),
            "state_value": torch.tensor(old_value).double().unsqueeze(-1),
        },
        [6],
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("symmetric_0p2", {}),
        ("asymmetric_0p2_0p28", {"clip_epsilon_high": 0.28}),
        ("dual_clip_0p2_c1p5", {"dual_clip": 1.5}),
    ],
)
def test_policy_numbers_by_hand(name, options):
    loss = PPOLoss(exact_network(), normalize_advantage=False, entropy_coef=0.5, **options)
    result = loss(exact_batch([0.0] * 6, [0.0] * 6, [0.0] * 6))
    expected, probs = NUMBERS[name], torch.tensor(NUMBERS["log_prob_new"]).double().exp()
    entropy = -(probs * probs.log() + (1 - probs) * torch.log1p(-probs)).mean()
    numbers = {
        "loss_objective": expected["loss"],
        "clip_fraction": expected["clip_fraction"],
        "kl_approx": expected["approx_kl_k1"],
        "ESS": expected["ess_fraction"],
        "max_ratio": max(expected["ratio"]),
        "mean_ratio": sum(expected["ratio"]) / 6,
        "entropy": entropy.item(),
        "loss_entropy": -0.5 * entropy.item(),
    }
    for key, number in numbers.items():
        assert result[key].item() == pytest.approx(number, rel=1e-6), key
    schulman = result["mean_ratio"] - 1 + result["kl_approx"]
    assert schulman.item() == pytest.approx(expected["approx_kl_k3"], rel=1e-6)


def test_advantages_are_normalised_over_the_batch_given():
    loss, batch = PPOLoss(exact_network()), exact_batch([0.0] * 6, [0.0] * 6, [0.0] * 6)
    advantages = NUMBERS["advantage_normalised"]["cleanrl_ddof1_eps1e_8"]
    pairs = zip(NUMBERS["symmetric_0p2"]["ratio"], advantages, strict=True)
    expected = -sum(min(ratio * each, min(max(ratio, 0.8), 1.2) * each) for ratio, each in pairs) / 6
    assert loss(batch)["loss_objective"].item() == pytest.approx(expected, rel=1e-6)
    for part in (batch[:3], batch[3:]):  # each minibatch by its own mean and deviation
        before = loss(part)["loss_objective"].item()
        moved = part.clone().set("advantage", 5 * part["advantage"] + 3)
        assert loss(moved)["loss_objective"].item() == pytest.approx(before, rel=1e-6)
    assert loss(batch[4:5])["loss_objective"].item() == pytest.approx(-3.0)  # one step has no deviation


@pytest.mark.parametrize("kind", ["l2", "smooth_l1"])
@pytest.mark.parametrize("value_clip", [None, 0.2])
def test_value_numbers_by_hand(kind, value_clip):
    numbers = NUMBERS["value_loss"]
    four = [numbers[key] for key in ("value", "old_value", "ret")]
    batch = exact_batch(*([*column, 0.0, 0.0] for column in four))[:4]
    result = PPOLoss(exact_network(), value_clip=value_clip, value_loss=kind, value_coef=0.7)(batch)
    expected = numbers[kind]["unclipped_mean" if value_clip is None else "clipped_max_mean"]
    factor = 0.5 if kind == "l2" else 1.0
    assert result["loss_critic"].item() == pytest.approx(0.7 * factor * expected, rel=1e-6)
    assert ("value_clip_fraction" in result) == (value_clip is not None)
    if value_clip is not None:
        assert result["value_clip_fraction"].item() == 0.75
    if value_clip is not None and kind == "l2":
        assert result["loss_critic"].item() == pytest.approx(0.7 * numbers[kind]["cleanrl_value_loss"], rel=1e-6)


@pytest.mark.parametrize("batch_shape", [(32,), (4, 8)])
def test_a_fresh_policy_has_a_ratio_of_exactly_one(make_network, make_batch, kind, sharing, batch_shape):
    network = make_network(kind, sharing)
    result = PPOLoss(network)(make_batch(network, *batch_shape, drift=0.0))
    assert [result[key].item() for key in ("max_ratio", "mean_ratio")] == [1.0, 1.0]
    assert [result[key].item() for key in ("clip_fraction", "kl_approx")] == [0.0, 0.0]
    assert result["ESS"].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"clip_epsilon_high": 0.3}, {"clip_epsilon": (0.2, 0.3)}),
        ({"value_clip": 0.1}, {"clip_value": 0.1}),
        ({"value_loss": "smooth_l1", "value_coef": 0.25}, {"loss_critic_type": "smooth_l1"}),
        ({"entropy_coef": 0.3, "clip_epsilon": 0.1}, {"entropy_coeff": 0.3, "clip_epsilon": 0.1}),
        ({"normalize_advantage": True}, {"normalize_advantage": True}),
    ],
)
def test_loss_gradients_and_metrics_are_torchrls(make_network, make_batch, kind, sharing, ours, theirs):
    network = make_network(kind, sharing)
    batch = make_batch(network, 64)
    loss = PPOLoss(network, **{"normalize_advantage": False, **ours})
    reference = ClipPPOLoss(network.actor, network.critic, **{"critic_coeff": 0.25, "loss_critic_type": "l2", **theirs})
    results, expected = loss(batch), reference(batch)
    assert set(results.keys()) == set(expected.keys()) == set(loss.out_keys)
    for key, value in expected.items():
        torch.testing.assert_close(results[key], value.squeeze(), rtol=1e-4, atol=1e-5)
    total(results).backward()
    mine = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    total(expected).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_gradient_reaches_both_networks_and_nothing_of_the_batch(make_network, make_batch, kind):
    network = make_network(kind, "separate")
    batch, loss = make_batch(network, 32), PPOLoss(network, value_clip=0.1)
    stored = [batch[key].requires_grad_() for key in ("action_log_prob", "advantage", "value_target", "state_value")]
    result = loss(batch)
    assert {key for key, value in result.items() if value.requires_grad} == {
        "loss_objective",
        "loss_critic",
        "loss_entropy",
    }
    found = gradients(loss, result)
    assert len(found) == len(list(network.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    assert all(each.grad is None for each in stored)


def test_faces_of_one_network_take_the_fast_way_and_others_compute_the_same(make_network, make_batch, kind, sharing):
    network, calls = make_network(kind, sharing), []
    batch = make_batch(network, 32)
    network.body.register_forward_hook(lambda *_: calls.append(1))
    results = [PPOLoss(network)(batch), PPOLoss(network.actor, network.critic)(batch)]
    assert len(calls) == 2
    detached = network.critic
    del detached.__dict__["actor_critic"]
    results.append(PPOLoss(network.actor, detached)(batch))
    assert len(calls) == (4 if sharing != "separate" else 3)
    for key, value in results[0].items():
        for other in results[1:]:
            torch.testing.assert_close(other[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["mask", ("collector", "mask"), "shifted_valid"])
@pytest.mark.parametrize("last", [(), (1,)])
def test_masked_steps_move_nothing(make_network, make_batch, kind, key, last):
    network = make_network(kind)
    batch, mask = make_batch(network, 8, 4), torch.rand(8, 4) < 0.6
    for name in ("observation", "action_log_prob", "advantage", "value_target", "state_value"):
        batch[name][~mask] = math.nan
    loss = PPOLoss(network, value_clip=0.1)
    without = loss(batch[mask])
    expected = gradients(loss, without)
    masked = loss(batch.set(key, mask.reshape(8, 4, *last)))
    for name, value in without.items():
        torch.testing.assert_close(masked[name], value)
    for name, gradient in gradients(loss, masked).items():
        torch.testing.assert_close(gradient, expected[name])


def test_several_masks_all_count_and_torchrls_can_be_switched_off(make_network, make_batch):
    network = make_network()
    batch, loss = make_batch(network, 16), PPOLoss(network)
    first, second = torch.rand(2, 16) < 0.7
    both = batch.clone().set("mask", first).set(("collector", "mask"), second)
    torch.testing.assert_close(loss(both)["loss_objective"], loss(batch[first & second])["loss_objective"])
    loss.loss_mask_key = None
    torch.testing.assert_close(loss(both)["loss_objective"], loss(batch[first])["loss_objective"])


def test_nothing_valid_is_a_loss_of_zero(make_network, make_batch):
    network = make_network()
    loss = PPOLoss(network)
    result = loss(make_batch(network, 8).set("mask", torch.zeros(8, dtype=torch.bool)))
    assert total(result).item() == 0.0
    assert all(gradient.abs().max() == 0 for gradient in gradients(loss, result).values())


def test_schedules_assign_attributes(make_network, make_batch):
    network = make_network()
    batch, loss = make_batch(network, 64), PPOLoss(network)
    before = loss(batch)
    loss.clip_epsilon, loss.entropy_coef = 0.01, 0.5
    after = loss(batch)
    fresh = PPOLoss(network, clip_epsilon=0.01, entropy_coef=0.5)(batch)
    assert after["clip_fraction"] > before["clip_fraction"]
    for key, value in fresh.items():
        assert torch.equal(after[key], value)
    loss.clip_epsilon_high = 10.0
    assert loss(batch)["clip_fraction"] < after["clip_fraction"]


def test_metrics_can_be_left_out(make_network, make_batch):
    network = make_network()
    batch, loss = make_batch(network, 8), PPOLoss(network, log_metrics=False)
    assert set(loss(batch).keys()) == set(loss.out_keys) == {"loss_objective", "loss_critic", "loss_entropy", "entropy"}
    loss.log_metrics = True
    assert set(METRICS) < set(loss(batch).keys())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(make_network, make_batch, kind, dtype):
    network = make_network(kind)
    batch, loss = make_batch(network, 64), PPOLoss(network)
    expected = loss(batch)
    with torch.autocast("cpu", dtype=dtype):
        result = loss(batch)
    for key in ("loss_objective", "loss_critic", "loss_entropy", "mean_ratio"):
        torch.testing.assert_close(result[key].float(), expected[key], rtol=0.05, atol=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients(loss, result).values())


def test_compiles_without_a_graph_break(make_network, make_batch, kind):
    torch._dynamo.reset()
    network = make_network(kind)
    batch, loss = make_batch(network, 16), PPOLoss(network, value_clip=0.2)
    compiled = torch.compile(lambda tensordict: total(loss(tensordict)), fullgraph=True, backend="aot_eager")
    expected = gradients(loss, loss(batch))
    value = compiled(batch)
    torch.testing.assert_close(value, total(loss(batch)))
    loss.zero_grad()
    value.backward()
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("change", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_are_whole_and_apart(make_network, make_batch, kind, change):
    network = make_network(kind)
    loss, batch = PPOLoss(network), make_batch(network, 16)
    twin = change(loss)
    torch.testing.assert_close(dict(twin(batch)), dict(loss(batch)))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(batch)["explained_variance"].item() == pytest.approx(0.0, abs=1e-6)  # its own network is what it runs
    assert all(parameter.abs().max() > 0 for parameter in network.parameters() if parameter.dim() > 1)


def test_state_dict_and_casts_reach_the_network(make_network, make_batch):
    network, other = make_network("normal", "separate"), make_network("normal", "separate")
    loss, batch = PPOLoss(network), make_batch(network, 8)
    loss.load_state_dict(PPOLoss(other).state_dict())
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    loss.double()
    assert all(parameter.dtype == torch.float64 for parameter in network.parameters())
    assert total(loss(batch.double())).dtype == torch.float64
    assert {id(parameter) for parameter in loss.parameters()} == {id(parameter) for parameter in network.parameters()}


def test_renamed_keys_and_keyword_calls(make_network, make_batch):
    network = make_network()
    loss, batch = PPOLoss(network), make_batch(network, 8)
    names = {"action_log_prob": "sample_log_prob", "advantage": ("nested", "advantage"), "value_target": "return"}
    renamed = batch.clone()
    for old, new in names.items():
        renamed.set(new, renamed.pop(old))
    other = PPOLoss(network)
    other.set_keys(sample_log_prob="sample_log_prob", advantage=("nested", "advantage"), value_target="return")
    torch.testing.assert_close(total(other(renamed)), total(loss(batch)))
    assert loss.in_keys == ["observation", "action", "action_log_prob", "advantage", "value_target"]
    outputs = loss(**{key: batch[key] for key in loss.in_keys})
    torch.testing.assert_close(outputs[loss.out_keys.index("loss_critic")], loss(batch)["loss_critic"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clip_epsilon": 1.5}, ValueError, r"clip_epsilon must be in \[0, 1\), got 1.5"),
        ({"dual_clip": 0.5}, ValueError, "dual_clip must be above 1, got 0.5"),
        ({"value_clip": 0.0}, ValueError, "value_clip must be above 0, got 0.0; None for no clip"),
        ({"value_loss": "huber"}, ValueError, "value_loss must be one of l2, smooth_l1, got 'huber'"),
        ({"value_coef": -1.0}, ValueError, "value_coef must be at least 0, got -1.0"),
        (
            {"critic_network": nn.Linear(1, 1)},
            TypeError,
            "must be an ActorCritic, or a ProbabilisticActor and .* Linear",
        ),
    ],
)
def test_bad_options_are_refused(make_network, options, error, message):
    with pytest.raises(error, match=message):
        PPOLoss(make_network(), **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda batch: batch.pop("advantage"), KeyError, "expected the key 'advantage', the batch has .*set_keys"),
        (lambda batch: batch.pop("observation"), KeyError, "expected the key 'observation'"),
        (
            lambda batch: batch.set("advantage", torch.zeros(8)),
            ValueError,
            r"advantage must have the shape \(8, 1\), got \(8,\); unsqueeze the last dimension",
        ),
        (
            lambda batch: batch.set("action_log_prob", torch.zeros(8, 1)),
            ValueError,
            r"must be those of whole actions, \(8,\), got \(8,\) of the policy and \(8, 1\) as action_log_prob",
        ),
        (
            lambda batch: batch.set("action", torch.zeros(8, 1, dtype=torch.int64)),
            ValueError,
            r"action must have the shape \(8,\), got \(8, 1\); drop singleton dimensions",
        ),
    ],
)
def test_bad_batches_are_refused(make_network, make_batch, change, error, message):
    network = make_network()
    batch = make_batch(network, 8)
    change(batch)
    with pytest.raises(error, match=message):
        PPOLoss(network)(batch)
