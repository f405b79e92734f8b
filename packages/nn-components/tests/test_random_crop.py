"""Random shifts of images: padding by edges and a window, one draw for each element."""

import pytest
import torch
from torch.nn.functional import pad

from tesserl_nn_components import random_crop


def shifts(generator, padding, batch):
    return torch.randint(-padding, padding + 1, (2, batch, 1), generator=generator)[..., 0].T.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_image_is_a_window_of_its_padded_self(dtype):
    pixels = torch.arange(7 * 2 * 5 * 3).remainder(251).reshape(7, 2, 5, 3).to(dtype)
    cropped = random_crop(pixels, 2, generator=torch.Generator().manual_seed(0))
    drawn = shifts(torch.Generator().manual_seed(0), 2, 7)
    assert len({tuple(shift) for shift in drawn}) > 2  # elements differ
    padded = pad(pixels.float(), (2, 2, 2, 2), mode="replicate").to(dtype)
    for image, around, (down, right) in zip(cropped, padded, drawn, strict=True):
        assert torch.equal(image, around[:, 2 + down : 7 + down, 2 + right : 5 + right])
    assert cropped.dtype == dtype


def test_leading_dimensions_stay_and_the_input_is_untouched():
    pixels = torch.rand(3, 2, 4, 5, 5)
    before = pixels.clone()
    assert random_crop(pixels, 1).shape == pixels.shape
    assert random_crop(pixels[0, 0], 1).shape == (4, 5, 5)
    assert torch.equal(random_crop(pixels, 0), pixels)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize(("shape", "padding"), [((2, 3, 4, 4), -1), ((4, 4), 1)])
def test_bad_input_is_refused(shape, padding):
    with pytest.raises(ValueError, match=r"padding must be at least 0 and pixels \[\*B, C, H, W\], got"):
        random_crop(torch.zeros(shape), padding)
