import pytest
import torch

from tesserl_nn_components import ScaleGrad, scale_grad


@pytest.mark.parametrize("scale", [1.0, 0.5, 2**-0.5, 0.0])
def test_forward_is_the_identity_and_backward_is_scaled(vectors, scale):
    case = vectors("rlpyt_misc.json")["scale_grad"]
    x = torch.tensor(case["x"], requires_grad=True)
    y = scale_grad(x, scale)
    assert y.tolist() == case["forward"]
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor(case["grad"][str(scale)]))


def test_the_function_is_public():
    x = torch.ones(3, requires_grad=True)
    ScaleGrad.apply(x, 3.0).sum().backward()
    assert x.grad.tolist() == [3, 3, 3]
