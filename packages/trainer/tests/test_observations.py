"""Observation spaces as keys."""

import numpy as np
import pytest
from gymnasium import spaces

from tesserl_trainer.run.observations import ObservationLayout


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
