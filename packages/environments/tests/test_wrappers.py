"""Wrappers on tasks whose every pixel is known, and on CarRacing against Gymnasium's own."""

import json
import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from tesserl_environments import (
    EnvironmentArgumentError,
    FrameSkip,
    NormalizeReward,
    ObservationLayout,
    Resumable,
    Telemetry,
    crop_edges,
    make_environments,
    resize,
    stack_frames,
    telemetry,
    to_grayscale,
)
from tesserl_environments.images import AreaMean, area_weights, grayscale

pytestmark = pytest.mark.kernel_free


class Pixels(gym.Env):
    """Images that count: filled with the step's number; beside a vector where told; the reward is the step."""

    def __init__(self, shape=(4, 5, 2), vector=False):
        image = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = spaces.Dict({"a": spaces.Box(0, 9, (1,)), "camera": image}) if vector else image
        self.action_space, self.shape, self.vector = spaces.Discrete(2), shape, vector

    def _observation(self):
        image = np.full(self.shape, self.t, np.uint8)
        return {"a": np.array([self.t], np.float32), "camera": image} if self.vector else image

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._observation(), {}

    def step(self, action):
        self.t += 1
        return self._observation(), float(self.t), self.t >= 7, False, {}


class Image(gym.Env):
    """One given image."""

    def __init__(self, image, high=255):
        low, high = np.zeros(image.shape), np.full(image.shape, high)
        self.observation_space = spaces.Box(low, high, dtype=image.dtype.type)
        self.action_space, self.image = spaces.Discrete(2), image

    def reset(self, *, seed=None, options=None):
        return self.image, {}


def seen(image, *wrappers):
    environment = wrapped(Image(np.asarray(image)), wrappers)
    observation, _ = environment.reset()
    assert environment.observation_space.contains(observation)
    return observation


# --- stacks and skips ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize(("shape", "stacked"), [((4, 5, 2), (4, 5, 6)), ((2, 4, 5), (6, 4, 5)), ((4, 5), (4, 5, 3))])
def test_frames_are_stacked_oldest_first_and_never_across_episodes(shape, stacked, vector):
    environment = stack_frames(Pixels(shape, vector), num_frames=3)

    def frames(observation):
        assert environment.observation_space.contains(observation)
        image = observation["camera"] if vector else observation
        assert image.shape == stacked
        return [int(part.max()) for part in np.split(image, 3, 0 if stacked[0] == 6 else -1)]

    assert frames(environment.reset()[0]) == [0, 0, 0]
    assert [frames(environment.step(0)[0]) for _ in range(4)] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert frames(environment.reset()[0]) == [0, 0, 0]
    if vector:
        assert environment.step(0)[0]["a"].tolist() == [1.0]


def test_planes_of_true_and_false_can_be_stacked():
    planes = np.arange(40).reshape(4, 5, 2) % 3 == 0
    environment = stack_frames(Image(planes, high=True), num_frames=2)
    observation, _ = environment.reset()
    assert environment.observation_space.contains(observation)
    assert np.array_equal(observation, np.concatenate([planes, planes], -1))


@pytest.mark.parametrize(
    ("kind", "wrap"),
    {
        "frame_stack": partial(stack_frames, num_frames=2),
        "grayscale": to_grayscale,
        "crop": partial(crop_edges, top=1),
        "resize": partial(resize, height=2, width=2),
    }.items(),
)
def test_wrappers_of_images_refuse_vectors(kind, wrap):
    message = rf"^wrappers: {kind} needs one image as observation, got Box\(.*\(4,\)"
    with pytest.raises(EnvironmentArgumentError, match=message):
        wrap(gym.make("CartPole-v1"))


def test_frame_skip_sums_rewards_and_stops_at_the_end():
    environment = FrameSkip(Pixels(), num_frames=3)
    environment.reset()
    steps = [environment.step(0)[1:3] for _ in range(3)]
    assert steps == [(1 + 2 + 3, False), (4 + 5 + 6, False), (7.0, True)]


class Flickering(Pixels):
    """Even steps show their number above, odd ones below."""

    def _observation(self):
        image = np.zeros(self.shape, np.uint8)
        image[self.t % 2] = self.t
        return {"a": np.array([self.t], np.float32), "camera": image} if self.vector else image


@pytest.mark.parametrize("vector", [False, True])
def test_frame_skip_can_keep_the_larger_pixels_of_an_actions_last_two_frames(vector):
    environment = FrameSkip(Flickering((2, 4, 4), vector), num_frames=3, max_last_two=True)
    environment.reset()
    observations = [environment.step(0)[0] for _ in range(3)]
    images = [observation["camera"] if vector else observation for observation in observations]
    assert [image[:, 0, 0].tolist() for image in images] == [[2, 3], [6, 5], [0, 7]]  # the last: one frame alone
    if vector:
        assert [observation["a"].item() for observation in observations] == [3, 6, 7]


# --- grey, crop, resize -------------------------------------------------------------------------------------------


def test_grey_is_the_luminance_of_bt_601():
    colors = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [10, 20, 30], [0, 0, 0]]] * 2, np.uint8
    )
    grey = [[76, 150, 29], [255, 18, 0]] * 2  # 76.245, 149.685, 29.07; 2.99 + 11.74 + 3.42 = 18.15
    image = seen(np.repeat(colors, 2, axis=1), to_grayscale)
    assert image.shape == (4, 6, 1)
    assert image[:, ::2, 0].tolist() == grey
    first = seen(np.repeat(colors, 2, axis=1).transpose(2, 0, 1), to_grayscale)
    assert first.shape == (1, 4, 6)
    assert first[0].tolist() == image[..., 0].tolist()
    assert grayscale(np.full((3, 1, 1), 0.5, np.float32), 0).tolist() == [[[0.5]]]


@pytest.mark.parametrize("shape", [(4, 5, 2), (7, 9)])
def test_grey_refuses_what_has_no_colours(shape):
    with pytest.raises(
        EnvironmentArgumentError, match=r"grayscale needs an image of three colours, got Box\(.*; put it before frame"
    ):
        seen(np.zeros(shape, np.uint8), to_grayscale)


def test_crop_cuts_off_rows_and_columns_wherever_the_channels_are():
    image = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    crop = partial(crop_edges, top=1, bottom=2, left=3)
    assert np.array_equal(seen(image, crop), image[1:4, 3:])
    assert np.array_equal(seen(image.transpose(2, 0, 1), crop), image[1:4, 3:].transpose(2, 0, 1))
    assert np.array_equal(seen(image[..., 0], crop), image[1:4, 3:, 0])
    wide = np.zeros((5, 6, 9), np.uint8)  # channels "auto" takes its first axis for channels
    assert seen(wide, partial(crop, channels="last")).shape == (2, 3, 9)
    with pytest.raises(EnvironmentArgumentError, match=r"crop leaves nothing of 6 x 7 pixels"):
        seen(image, partial(crop_edges, left=3, right=4))


def test_a_resized_pixel_is_the_mean_of_what_it_covers():
    image = np.array([[0, 10, 20, 60], [2, 12, 22, 62], [100, 100, 50, 54], [100, 100, 52, 56]], np.uint8)
    assert seen(image, partial(resize, height=2, width=2)).tolist() == [[6, 41], [100, 53]]
    # from 3 to 2: each pixel covers one and a half, with weights 2/3 and 1/3
    line = np.array([[[0.0], [30.0], [90.0]]], np.float32)
    assert AreaMean((1, 3, 1), 1, 2, -1)(line).ravel().tolist() == pytest.approx([10.0, 70.0])
    # from 2 to 3: the middle one lies on both halves
    assert AreaMean((1, 2, 1), 1, 3, -1)(line[:, :2]).ravel().tolist() == pytest.approx([0.0, 15.0, 30.0])


@pytest.mark.parametrize(("size", "target"), [(96, 84), (84, 84), (210, 84), (160, 84), (5, 11), (7, 3)])
def test_the_areas_of_a_line_cover_it_once(size, target):
    index, weight = area_weights(size, target)
    covered = np.bincount(index.ravel(), weight.ravel(), size)
    assert np.allclose(covered, target / size, atol=1e-6)
    assert np.allclose(weight.sum(1), 1.0)
    constant = np.full((size, size, 1), 201, np.uint8)
    assert (AreaMean(constant.shape, target, target, -1)(constant) == 201).all()


# --- CarRacing ----------------------------------------------------------------------------------------------------


def ours(*wrappers):
    spec = gym.spec("CarRacing-v3")
    environment = gym.make(spec, continuous=False).unwrapped
    assert not hasattr(environment, "drawing")
    from tesserl_environments.car_racing import CarRacing

    faster = CarRacing(continuous=False)
    return [wrapped(TimeLimit(one, 1000), wrappers) for one in (environment, faster)]


def wrapped(environment, wrappers):
    for wrap in wrappers:
        environment = wrap(environment)
    return environment


def play_both(plain, faster, seed, steps):
    generator = np.random.default_rng(seed)
    assert np.array_equal(plain.reset(seed=seed)[0], faster.reset(seed=seed)[0])
    for _ in range(steps):
        action = int(generator.choice([0, 1, 2, 3, 3, 3, 4]))
        left, right = plain.step(action), faster.step(action)
        assert np.array_equal(left[0], right[0])
        assert left[1:4] == right[1:4]
        yield right


@pytest.mark.parametrize("randomize", [False, True])
def test_the_faster_car_racing_is_the_same_task_picture_for_picture(randomize):
    from gymnasium.envs.box2d import car_racing as original

    from tesserl_environments import car_racing

    kinds = original.CarRacing, car_racing.CarRacing
    plain, faster = (kind(continuous=False, domain_randomize=randomize) for kind in kinds)
    for seed in (1, 2):
        assert len(list(play_both(plain, faster, seed, 60))) == 60


def test_skipped_frames_are_not_drawn_and_nothing_else_changes():
    plain, faster = ours(partial(TimeLimit, max_episode_steps=34), partial(FrameSkip, num_frames=4))
    drawn = []
    painter = faster.unwrapped
    draw, painter._render_road = painter._render_road, lambda *a: (drawn.append(painter.t), draw(*a))[1]
    for seed in (3, 4):
        drawn.clear()
        rows = list(play_both(plain, faster, seed, 9))
        assert [row[3] for row in rows] == [False] * 8 + [True]  # truncated on the second frame of the ninth action
        assert np.round(np.array(drawn) * 50).tolist() == [1, *range(5, 34, 4), 35]


def test_at_the_end_of_the_world_the_pictures_are_the_same_too():
    pair = ours(partial(FrameSkip, num_frames=4))
    for environment in pair:
        environment.reset(seed=7)
        for _ in range(13):  # until the camera has zoomed in
            environment.step(0)
        car = environment.unwrapped.car
        aside = 332.8 - car.hull.position.x
        for body in (car.hull, *car.wheels):
            body.position = (body.position.x + aside, body.position.y)
            body.linearVelocity = (20.0, 0.0)
    results = [[environment.step(0) for _ in range(3)] for environment in pair]
    assert not pair[1].unwrapped._meadow_fills_the_window(16.2)
    for left, right in zip(*results, strict=True):
        assert np.array_equal(left[0], right[0])
        assert left[1:4] == right[1:4]
    assert any(result[2] and result[1] < -99 for result in results[1])


def test_frames_are_drawn_where_something_below_reads_them():
    for inner in (partial(crop_edges, bottom=12), partial(FrameSkip, num_frames=1, max_last_two=True)):
        faster = ours(inner, partial(FrameSkip, num_frames=2))[1]
        assert faster._painter is None
    assert ours(partial(FrameSkip, num_frames=2, max_last_two=True))[1]._painter is None
    assert ours(partial(FrameSkip, num_frames=2))[1]._painter is not None
    plain = ours(partial(FrameSkip, num_frames=2))[0]
    assert isinstance(plain, FrameSkip)
    assert plain._painter is None


def test_training_drives_the_faster_car_with_pictures_and_telemetry():
    environments = make_environments(
        "CarRacing-v3",
        2,
        kwargs={"continuous": False},
        wrappers=(
            partial(FrameSkip, num_frames=2),
            Telemetry,
            partial(crop_edges, bottom=12),
            to_grayscale,
            partial(resize, height=42, width=48),
            partial(stack_frames, num_frames=3),
        ),
    )
    try:
        assert environments.envs[0].unwrapped.drawing
        layout = ObservationLayout(environments.single_observation_space)
        assert layout.shapes == {"pixels": (3, 42, 48), "observation": (7,)}
        out = layout.empty(2)
        layout.write(environments.reset(seed=[1, 2])[0], out)
        assert (out["pixels"][:, 0] == out["pixels"][:, 2]).all()
        assert np.isfinite(out["observation"]).all()
        layout.write(environments.step(np.array([3, 3]))[0], out)
        assert (out["pixels"][:, 0] == out["pixels"][:, 1]).all()
        assert (out["pixels"][:, 1] != out["pixels"][:, 2]).any()
        assert (out["observation"][:, 3:5] > 0).all()  # the rear wheels drive
    finally:
        environments.close()


def test_telemetry_reads_the_car_in_the_units_that_it_names():
    environment = Telemetry(ours()[1])
    observation, _ = environment.reset(seed=5)
    assert environment.observation_space.contains(observation)
    car = environment.unwrapped.car
    car.hull.linearVelocity = (30.0, -40.0)
    car.hull.angularVelocity = -2.0
    for wheel, speed in zip(car.wheels, (10.0, -20.0, 30.0, 160.0), strict=True):
        wheel.omega = speed
    steering = 2.5 * car.wheels[0].joint.angle
    assert telemetry.read(car).tolist() == pytest.approx([0.5, 0.1, -0.2, 0.3, 1.6, steering, -0.5])
    for _ in range(8):
        observation = environment.step(2)[0]  # to the left
    assert observation["observation"][5] > 0.4
    assert observation["observation"].dtype == np.float32


def test_telemetry_refuses_other_tasks():
    with pytest.raises(EnvironmentArgumentError, match=r"telemetry reads the car of CarRacing-v3 .* got <.*CartPole"):
        Telemetry(gym.make("CartPole-v1"))


class Paying(gym.Env):
    """Pays rewards of a random size for five steps."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(self.np_random.normal(50, 20)), self.steps == 5, False, {}


def paid(environment, episodes: int, seed: int | None = 3) -> list[list[float]]:
    rewards = []
    for episode in range(episodes):
        environment.reset(seed=seed if episode == 0 else None)
        rewards.append([float(environment.step(0)[1]) for _ in range(5)])
    return rewards


def test_rewards_are_divided_by_the_spread_of_the_discounted_return():
    raw, sums, expected = paid(Paying(), 4), [], []
    for episode in raw:
        running = 0.0
        for reward in episode:
            running = 0.9 * running + reward
            sums.append(running)
            expected.append(reward if len(sums) == 1 else reward / math.sqrt(np.var(sums) + 1e-8))
    found = paid(NormalizeReward(Paying(), discount=0.9, clip=None), 4)
    assert np.allclose(np.concatenate(found), expected, rtol=1e-12)
    clipped = paid(NormalizeReward(Paying(), discount=0.9, clip=3.0), 4)
    assert np.allclose(np.concatenate(clipped), np.clip(expected, -3, 3), rtol=1e-12)


@pytest.mark.parametrize("arguments", [{"discount": 1.5}, {"clip": 0.0}])
def test_normalisation_out_of_range_is_refused(arguments):
    with pytest.raises(EnvironmentArgumentError, match="normalize_reward needs a discount"):
        NormalizeReward(Paying(), **arguments)


def test_statistics_of_rewards_are_put_back():
    first, second = (Resumable(NormalizeReward(Paying(), clip=None), 0) for _ in range(2))
    paid(first, 3)
    first.reset()
    first.step(0)
    saved = json.loads(json.dumps(first.snapshot()))
    assert second.restore([saved])
    for environment in (first, second):
        for _ in range(4):
            environment.step(0)
    assert paid(first, 2, None) == paid(second, 2, None)


def test_a_snapshot_without_the_statistics_is_not_restored():
    plain, normalised = Resumable(Paying(), 0), Resumable(NormalizeReward(Paying()), 0)
    paid(plain, 1)
    assert not normalised.restore([plain.snapshot()])
