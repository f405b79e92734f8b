"""Every cell of the catalogue, at tiny sizes: builds, learns, is saved and loaded; every seventh in bfloat16 too.

Learning is a step of an algorithm: the quantile loss, or PPO's, then GRPO's and then DPO's.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from tesserl_actor_critic import PPOLoss
from tesserl_configs import ConfigError, RunConfig
from tesserl_environments import ObservationLayout
from tesserl_grpo import GRPOLoss
from tesserl_iqn import quantile_huber_loss
from tesserl_preference_opt import PreferenceLoss
from tesserl_trainer.networks.building import build_policy_network, build_quantile_network
from tesserl_trainer.networks.topology_cells import cells

IMAGE, FEATURES, ACTIONS, BATCH, TAUS = (8, 12, 2), 5, 3, 4, 6
PICTURE, VECTOR = spaces.Box(0, 255, IMAGE, np.uint8), spaces.Box(-1, 1, (FEATURES,))
CELLS = list(cells())
DISTINCT = [cell for cell in CELLS if not cell.is_duplicate]
RUN = {"total_steps": 1_000, "environment": {"id": "none"}, "algorithm": "iqn", "iqn": {"num_cosines": 7}}


@pytest.fixture(scope="session")
def options(hf_models):
    """Keys that make every kind of part tiny."""
    wide = {"out_features": 11, "d_model": 4}
    return {
        "vision.cnn": {"channels": [3], "kernel_sizes": [3], "strides": [2], "pool_size": 2, "spectral_norm": "all"},
        "vision.impala": {"channels": [3, 4], "pool_size": 2, "spectral_norm": "residual"},
        "vision.vit": {"patch_size": 4, "d_model": 6, "num_layers": 1, "num_heads": 2},
        "vision.hf": {"model": hf_models["vit"], "local_files_only": True},
        "vector.mlp": {"hidden_sizes": [7], "normalization": {"kind": "running"}},
        "fusion.vision_transformer": {"out_features": 11},
        "fusion.post_concat": wide,
        "fusion.unified": wide,
        "trunk.native_transformer": {"num_layers": 1, "num_heads": 2},
        "trunk.mlp": {"hidden_sizes": [5]},
        "trunk.cnn": {"channels": [5]},
        "trunk.hf_embedding": {"model": hf_models["bert"], "local_files_only": True},
        "stream.mlp": {"hidden_sizes": [9]},
        "stream.transformer": {"d_model": 4, "num_heads": 2, "hidden_features": 5},
    }


def build(cell, options, sizes=None):
    config = cell.config(options, sizes)
    layout = ObservationLayout(VECTOR if cell.vision == "none" else spaces.Dict(image=PICTURE, vector=VECTOR))
    if cell.family == "policy":
        return build_policy_network(config, layout, spaces.Discrete(ACTIONS))
    return build_quantile_network(RunConfig(**RUN, nn=cell.block(options, sizes)), layout, ACTIONS)


def inputs_of(cell):
    generator = torch.Generator().manual_seed(7)
    height, width, channels = IMAGE
    pixels = torch.randint(256, (BATCH, channels, height, width), dtype=torch.uint8, generator=generator)
    inputs = [] if cell.vision == "none" else [pixels]
    inputs.append(torch.randn(BATCH, FEATURES, generator=generator))
    return [*inputs, torch.rand(BATCH, TAUS, generator=generator)] if cell.family == "quantile" else inputs


def loss_of(cell, network, inputs):
    """The loss of the algorithm that trains such networks: for policies that of PPO."""
    if cell.family == "policy":
        return total(PPOLoss(network, log_metrics=False), steps_of(network, inputs))
    targets = torch.linspace(-1, 1, 5).expand(BATCH, 5)
    return quantile_huber_loss(network(*inputs)[..., 1].float(), inputs[-1], targets).mean()


def steps_of(network, inputs):
    """Record of a policy's state and results."""
    action = torch.arange(BATCH) % ACTIONS
    outcome = torch.linspace(-1, 1, BATCH).unsqueeze(1)
    with torch.no_grad():
        old_log_probs = network.distribution(*network.policy_parameters(*inputs)).log_prob(action)
    steps = {"action": action, "action_log_prob": old_log_probs, "advantage": outcome, "value_target": outcome}
    return TensorDict({**dict(zip(network.in_keys, inputs, strict=True)), **steps}, [BATCH])


def pair_of(network, inputs):
    """One pair of segments of two steps, with the policy as it is for a reference."""
    steps = steps_of(network, inputs).rename_key_("action_log_prob", "reference_log_prob").view(2, 1, BATCH // 2)
    return TensorDict({"chosen": steps[0], "rejected": steps[1]}, [1])


def total(loss, batch):
    return sum(value for name, value in loss(batch).items() if name.startswith("loss_"))


def check_gradients(network):
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def as_tuple(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def named(cell):
    return "-".join([cell.family, cell.fusion, cell.vision, cell.trunk, *cell.streams])


def learn(network, loss):
    network.zero_grad()
    loss.backward()
    check_gradients(network)
    torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1).step()


SHARED = {"shared_hidden_sizes": [6]}
"""Hidden layers that policy and value share: on every body once, and once with every pair of streams."""
CASES = [(cell, {}) for cell in DISTINCT] + [
    (cell, SHARED)
    for cell in DISTINCT
    if cell.family == "policy" and (cell.streams == ("mlp", "mlp") or (cell.fusion, cell.vision) == ("none", "cnn"))
]


def each(cases):
    return pytest.mark.parametrize(
        ("cell", "sizes"), cases, ids=[named(cell) + "-shared" * bool(sizes) for cell, sizes in cases]
    )


@pytest.mark.kernel_free  # equal networks give equal bits with any kernels
@each(CASES)
def test_a_cell_builds_learns_and_survives_its_file(cell, sizes, options):
    network, inputs = build(cell, options, sizes), inputs_of(cell)
    assert any(name.startswith("shared.") for name in network.state_dict()) == bool(sizes)
    learn(network, loss_of(cell, network, inputs))
    if cell.family == "policy":
        network.value.requires_grad_(False)  # of no use to GRPO and DPO
        grpo = GRPOLoss(network, entropy_coef=0.01, reduction="dapo", log_metrics=False)
        learn(network, total(grpo, steps_of(network, inputs)))
        learn(network, PreferenceLoss(network)(pair_of(network, inputs))["loss"])
    network.eval()
    with torch.no_grad():
        learned = network(*inputs)
    copy = build(cell, options, sizes).eval()
    copy.load_state_dict(network.state_dict())
    outputs = copy(*inputs)
    torch.testing.assert_close(outputs, learned, rtol=0, atol=0)
    shapes = [(BATCH, TAUS, ACTIONS)] if cell.family == "quantile" else [(BATCH, ACTIONS), (BATCH, 1)]
    assert [tuple(output.shape) for output in as_tuple(outputs)] == shapes


# Seven and the 20 pairs of a trunk and streams have no common factor, so that every seventh cell meets all of them.
@each(CASES[::7])
def test_a_cell_computes_and_learns_in_bfloat16(cell, sizes, options):
    torch.manual_seed(0)
    network, inputs = build(cell, options, sizes).eval(), inputs_of(cell)
    with torch.no_grad():
        outputs = network(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(*inputs)
        loss = loss_of(cell, network, inputs)
    for one, other in zip(as_tuple(rough), as_tuple(outputs), strict=True):
        # One of the four samples may be far off: a norm over four features magnifies the rounding of nearly equal ones,
        # which happens in one network of a thousand. The others differ by a quarter of this limit at most.
        assert torch.isclose(one.float(), other, rtol=0.1, atol=0.1).float().mean() >= 0.75
    learn(network, loss)


def test_every_combination_is_legal_and_counted(options, capsys):
    count = Counter("duplicate" if cell.is_duplicate else cell.family for cell in CELLS)
    illegal = [cell for cell in DISTINCT if not is_legal(cell, options)]
    with capsys.disabled():
        print(f"\n{len(CELLS)} combinations: {dict(count)}, {len(illegal)} illegal")  # noqa: T201
    # 2 families x 6 fusions x 5 encoders x 5 trunks x 4 pairs of streams; without fusion 4 of 5 trunks say nothing
    assert len(CELLS) == 2 * 6 * 5 * 5 * 4
    assert count == {"quantile": 520, "policy": 520, "duplicate": 2 * 5 * 4 * 4}
    assert len(set(CELLS)) == len(CELLS)
    assert illegal == []


def is_legal(cell, options):
    try:
        return bool(cell.config(options))
    except ConfigError:
        return False


@pytest.mark.parametrize("family", ["quantile", "policy"])
def test_a_member_of_each_family_compiles(family, options):
    [cell] = [
        cell
        for cell in DISTINCT
        if (cell.family, cell.fusion, cell.vision) == (family, "unified", "vit")
        and (cell.trunk, cell.streams) == ("native_transformer", ("transformer", "mlp"))
    ]
    network, inputs = build(cell, options), inputs_of(cell)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), network(*inputs))
    outputs = compiled(*inputs)
    sum(output.square().sum() for output in as_tuple(outputs)).backward()
    check_gradients(network)
