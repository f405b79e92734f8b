"""Losses and pairs on a GPU, where there is one."""

import pytest
import torch

from tesserl_preference_data import PreferencePairs
from tesserl_preference_opt import CPLLoss, KTOLoss, PreferenceLoss, precompute_reference_log_probs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", ["direct", "categorical", "normal"])
@pytest.mark.parametrize("build", [lambda a: PreferenceLoss(a, reference_network="copy"), CPLLoss, KTOLoss])
def test_the_losses_give_what_they_give_on_the_processor(kind, build, make_actor, make_batch):
    actor, batch = make_actor(kind), make_batch(kind=kind, filling=float("nan"))
    expected = build(actor)(batch)["loss"]
    loss = build(actor).to("cuda")
    found = loss(batch.to("cuda"))["loss"]
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    found.backward()
    assert all(parameter.grad.device.type == "cuda" for parameter in actor.parameters() if parameter.grad is not None)


def test_pairs_on_the_gpu_are_those_in_memory(make_actor, make_batch):
    batch = make_batch(kind="categorical")
    pairs = precompute_reference_log_probs(
        PreferencePairs.from_segments(batch["chosen"], batch["rejected"]), make_actor("categorical")
    )
    moved = pairs.to("cuda")
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    for own, other in zip(
        *(each.minibatches(3, generator=g) for each, g in zip((pairs, moved), generators, strict=True)), strict=True
    ):
        assert other["chosen", "observation"].device.type == "cuda"
        assert torch.equal(other["chosen", "observation"].cpu(), own["chosen", "observation"])
        assert torch.equal(other["rejected", "reference_log_prob"].cpu(), own["rejected", "reference_log_prob"])
