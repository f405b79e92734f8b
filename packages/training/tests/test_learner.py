"""One gradient step."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from tesserl_training.learner import Learner


class Plane(nn.Module):
    """A loss of two parts whose gradient is (3, 4) times a factor; a third entry is no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2))

    def forward(self, batch):
        x, y = self.point * batch["factor"]
        return TensorDict({"loss_x": 3 * x, "loss_y": 4 * y, "entropy": (100 * x).detach()})


@pytest.mark.parametrize(
    ("max_grad_norm", "factor", "moved"),
    [(None, 1.0, (3.0, 4.0)), (0.5, 1.0, (0.3, 0.4)), (0.5, 0.01, (0.03, 0.04)), (0.5, -1.0, (-0.3, -0.4))],
)
def test_losses_are_added_and_gradients_clipped_by_their_global_norm(max_grad_norm, factor, moved):
    loss, told = Plane(), []
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    learner = Learner(loss, loss, list(loss.parameters()), optimizer, max_grad_norm, told.append)
    metrics = learner.update(TensorDict({"factor": torch.tensor(factor)}), 7, lambda name: None)
    torch.testing.assert_close(-loss.point.detach(), torch.tensor(moved))
    assert told == [7]
    assert not any(metric.requires_grad for metric in metrics.values())
    if max_grad_norm is None:
        assert "gradient_norm" not in metrics
    else:
        assert metrics["gradient_norm"].item() == pytest.approx(5 * abs(factor))  # before it is clipped
