"""Observation spaces as keys."""

import numpy as np
import pytest
from gymnasium import spaces

from tesserl_environments import ObservationLayout

pytestmark = pytest.mark.kernel_free


def written(space, batch, **options):
    layout = ObservationLayout(space, **options)
    out = layout.empty(len(next(iter(batch.values())) if isinstance(batch, dict) else batch))
    layout.write(batch, out)
    return out


def test_a_vector_becomes_observation():
    batch = np.arange(6, dtype=np.float64).reshape(2, 3)
    out = written(spaces.Box(-1, 1, (3,)), batch)
    assert list(out) == ["observation"]
    assert out["observation"].dtype == np.float32
    assert np.array_equal(out["observation"], batch)


def test_boolean_planes_become_0_and_255_channels_first():
    batch = np.zeros((2, 4, 5, 3), bool)
    batch[1, 2, 3, 1] = True
    out = written(spaces.Box(0, 1, (4, 5, 3), bool), batch)["pixels"]
    assert out.shape == (2, 3, 4, 5)
    assert out.dtype == np.uint8
    assert out.sum() == 255
    assert out[1, 1, 2, 3] == 255


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((84, 84, 3), "auto", (3, 84, 84)),
        ((4, 84, 84), "auto", (4, 84, 84)),
        ((10, 10, 10), "auto", (10, 10, 10)),
        ((8, 9, 20), "last", (20, 8, 9)),
        ((20, 9, 8), "first", (20, 9, 8)),
        ((7, 9), "auto", (1, 7, 9)),
    ],
)
def test_the_channel_axis_comes_first(shape, channels, expected):
    batch = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    layout = ObservationLayout(spaces.Box(0, 255, shape, np.uint8), channels=channels)
    out = layout.empty(2)
    layout.write(batch, out)
    assert layout.shapes == {"pixels": expected}
    assert np.array_equal(np.sort(out["pixels"], axis=None), np.sort(batch, axis=None))
    if expected[1:] == shape[:2] and len(shape) == 3 and expected != shape:
        assert np.array_equal(out["pixels"][:, 1], batch[..., 1])


def test_a_dict_gives_pixels_and_its_vectors_in_sorted_key_order():
    space = spaces.Dict(
        {
            "speed": spaces.Box(0, 1, (2,)),
            "camera": spaces.Box(0, 255, (6, 7, 3), np.uint8),
            "gear": spaces.Discrete(3, start=1),
            "lights": spaces.MultiBinary(2),
            "modes": spaces.MultiDiscrete([2, 3]),
            "angle": spaces.Box(-1, 1, ()),
        }
    )
    batch = {
        "speed": np.array([[0.25, 0.5]], np.float32),
        "camera": np.full((1, 6, 7, 3), 9, np.uint8),
        "gear": np.array([3]),
        "lights": np.array([[1, 0]], np.int8),
        "modes": np.array([[1, 0]]),
        "angle": np.array([-0.5], np.float32),
    }
    out = written(space, batch)
    assert list(out) == ["pixels", "observation"]
    assert out["observation"].tolist() == [[-0.5, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0.25, 0.5]]
    assert (out["pixels"] == 9).all()


def test_float_pixels_stay_float():
    assert ObservationLayout(spaces.Box(0, 1, (8, 8, 3), np.float32)).dtypes["pixels"] == np.float32


def test_unsupported_spaces_are_named():
    with pytest.raises(ValueError, match=r"the observation space: expected a Box, .* got Text"):
        ObservationLayout(spaces.Text(5))
    with pytest.raises(ValueError, match=r"entry 'b' of the observation space: .* got Graph"):
        ObservationLayout(spaces.Dict({"b": spaces.Graph(spaces.Discrete(2), None)}))
    image = spaces.Box(0, 255, (6, 7, 3), np.uint8)
    with pytest.raises(ValueError, match=r"may hold one image, got 2 \(left, right\); stack them"):
        ObservationLayout(spaces.Dict({"left": image, "right": image}))


# --- integers, and what else could become another number on its way ------------------------------------------------


@pytest.mark.parametrize(("low", "high", "dtype"), [(-1, 1, np.int8), (0, 1000, np.int32), (0, 65535, np.uint16)])
def test_integer_images_beyond_a_byte_are_refused_by_type_and_bounds(low, high, dtype):
    image = spaces.Box(low, high, (8, 8, 5), dtype)
    bounds = rf"in 0\.\.255, got {np.dtype(dtype)} from {low} to {high}; return float32, or planes of uint8"
    with pytest.raises(ValueError, match="the observation space: an image of integers must have bounds " + bounds):
        ObservationLayout(image)
    with pytest.raises(ValueError, match=rf"entry 'board' of the observation space: .* {bounds}"):
        ObservationLayout(spaces.Dict({"board": image}))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_integer_images_within_a_byte_read_as_written(dtype):
    high = min(255, np.iinfo(dtype).max)
    batch = np.linspace(0, high, 2 * 6 * 7 * 3).reshape(2, 6, 7, 3).astype(dtype)
    out = written(spaces.Box(0, high, (6, 7, 3), dtype), batch)["pixels"]
    assert out.dtype == np.uint8
    assert out.tolist() == np.moveaxis(batch, -1, 1).tolist()


@pytest.mark.parametrize("value", [-1, 256])
def test_an_integer_image_that_breaks_its_bounds_is_refused(value):
    space = spaces.Box(0, 255, (8, 8, 3), np.int64)
    with pytest.raises(ValueError, match=rf"expected integers in 0\.\.255, got .*{value}"):
        written(space, np.full((1, 8, 8, 3), value))


@pytest.mark.parametrize(
    ("space", "batch", "expected"),
    [
        (spaces.Box(-(2**40), 2**40, (2,), np.int64), np.array([[-3, 2**24]]), [[-3.0, 16777216.0]]),
        (spaces.Box(-128, 127, (2,), np.int8), np.array([[-128, 127]], np.int8), [[-128.0, 127.0]]),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([[True, False]]), [[1.0, 0.0]]),
        (spaces.Box(-1, 1, (2,), np.float64), np.array([[0.1, -0.25]]), [[np.float32(0.1), -0.25]]),
        (spaces.Box(0, 255, (2, 3), np.int64), np.arange(6).reshape(1, 2, 3), [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_vectors_of_every_type_keep_their_sign_and_size(space, batch, expected):
    assert written(space, batch)["observation"].tolist() == expected


@pytest.mark.parametrize(
    ("space", "batch", "message"),
    [
        (spaces.Box(-1, 1, (4,)), np.zeros((2, 1), np.float32), r"expected an array of shape \(2, 4\), got \(2, 1\)"),
        (spaces.Box(0, 255, (6, 7, 3), np.uint8), np.full((1, 6, 7, 3), 0.5), "of type uint8, got float64 .* to 0.5"),
        (spaces.Box(0, 255, (3,), np.uint8), np.array([[0, 256, 1]]), "of type uint8, got int64 with values from 0 to"),
        (spaces.Discrete(3), np.array([0, -1]), r"expected choices from 0 to 2, got \[0, -1\]"),
        (spaces.Discrete(3, start=1), np.array([4]), r"expected choices from 1 to 3, got \[4\]"),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 3]]), r"expected choices from 0 to 2, got \[3\]"),
        (spaces.Box(-1, 1, (1,)), np.array([["a"]]), "of type float32, got <U1"),
    ],
)
def test_a_batch_that_is_not_of_its_space_is_refused(space, batch, message):
    with pytest.raises(ValueError, match=f"the observation space: .*{message}.*; correct the space or the task"):
        written(space, batch)


def test_integers_of_another_width_are_converted_where_none_changes():
    assert written(spaces.Box(0, 255, (3,), np.uint8), np.array([[0, 255, 1]]))["observation"].tolist() == [[0, 255, 1]]
    assert written(spaces.MultiBinary(2), np.array([[1, 0]]))["observation"].tolist() == [[1, 0]]
