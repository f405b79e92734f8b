import copy
import functools
import pickle

import pytest
import torch
from torch import nn

from tesserl_nn_components import MLP, DuelingHead, NoisyLinear, QuantileDecoder, TransformerSlot, reset_noise

D, A, K, N = 10, 7, 5, 3

SLOTS = {
    "mlp": functools.partial(MLP, hidden_sizes=[9]),
    "transformer": functools.partial(TransformerSlot, d_model=4, num_heads=2, hidden_features=9),
}


def decoder(advantage="mlp", value="mlp", **options):
    return QuantileDecoder(D, A, advantage=SLOTS[advantage], value=SLOTS[value], **options)


@pytest.mark.parametrize("num_blocks", [None, N])
@pytest.mark.parametrize("value", SLOTS)
@pytest.mark.parametrize("advantage", SLOTS)
def test_every_pair_of_slots_duels_and_trains_every_parameter(advantage, value, num_blocks):
    network = decoder(advantage, value, num_blocks=num_blocks)
    x = torch.randn(2, K, D)
    quantiles = network(x)
    assert quantiles.shape == ((2, K, A) if num_blocks is None else (2, K, N, A))
    # The mean over actions is the value
    torch.testing.assert_close(quantiles.mean(-1), network.value(x).reshape(quantiles.shape[:-1]))
    quantiles.pow(3).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_mlp_slots_equal_the_dueling_head():
    network, head = decoder(), DuelingHead(D, A, hidden_sizes=[9])
    head.load_state_dict(network.state_dict())
    x = torch.randn(2, K, D)
    assert torch.equal(head(x), network(x))


def test_without_dueling_the_advantage_is_the_output():
    network = decoder(dueling=False)
    x = torch.randn(2, K, D)
    assert torch.equal(network(x), network.advantage(x))
    assert not any(name.startswith("value") for name in network.state_dict())


def test_default_slots_are_mlps_of_512():
    network = QuantileDecoder(D, A)
    assert sum(p.numel() for p in network.parameters()) == 2 * (D * 512 + 512) + (512 * A + A) + (512 + 1)


def test_chunks_carry_positions():
    slot = TransformerSlot(8, A, d_model=4, num_heads=2)
    x = torch.randn(1, 8)
    swapped = torch.cat([x[:, 4:], x[:, :4]], -1)
    assert not torch.allclose(slot(x), slot(swapped), atol=1e-5)
    nn.init.zeros_(slot.positions)
    torch.testing.assert_close(slot(x), slot(swapped))  # without them the order of chunks is lost


def test_features_that_do_not_fill_the_last_chunk_are_filled_with_zeros():
    slot = TransformerSlot(10, A, d_model=4, num_heads=2)
    wide = TransformerSlot(12, A, d_model=4, num_heads=2)
    wide.load_state_dict(slot.state_dict())
    x = torch.randn(2, K, 10)
    assert slot.num_chunks == 3
    torch.testing.assert_close(slot(x), wide(nn.functional.pad(x, (0, 2))))


def test_noisy_and_layer_norm_reach_the_readouts():
    network = QuantileDecoder(
        D,
        A,
        advantage=functools.partial(SLOTS["transformer"], noisy=True, layer_norm=True),
        value=functools.partial(SLOTS["mlp"], noisy=True, layer_norm=True),
    )
    assert sum(isinstance(layer, NoisyLinear) for layer in network.modules()) == 4
    assert isinstance(network.advantage.readout.layers[1], nn.LayerNorm)
    x = torch.randn(2, K, D)
    before = network(x)
    reset_noise(network)
    assert not torch.allclose(network(x), before)


@pytest.mark.parametrize("slot", SLOTS)
def test_copy_pickle_half_precision_and_meta(slot):
    network = decoder(slot, slot)
    x = torch.randn(2, K, D)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(x), network(x))
    half = copy.deepcopy(network).to(torch.bfloat16)(x.to(torch.bfloat16))
    torch.testing.assert_close(half.float(), network(x), rtol=0.1, atol=0.1)
    with torch.device("meta"):
        assert decoder(slot, slot)(torch.empty(2, K, D)).shape == (2, K, A)


def test_compiles_without_a_graph_break():
    network = decoder("transformer", "mlp")
    x = torch.randn(2, K, D)
    torch.testing.assert_close(torch.compile(network, backend="aot_eager", fullgraph=True)(x), network(x))
