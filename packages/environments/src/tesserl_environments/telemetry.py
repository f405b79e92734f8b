"""Add the state of CarRacing's car to the observation."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.observations import is_image

SPEED = 0.01
"""Scale of the speed, which reaches about 90 length units/s."""
WHEEL_SPEED = 0.01
"""Scale of a wheel's angular speed, which reaches about 170 rad/s with grip, and more if the wheel spins."""
STEERING = 2.5
"""Scale of the steering angle, which is at most 0.4 rad."""
ANGULAR_VELOCITY = 0.25
"""Scale of the angular velocity, which reaches about 4 rad/s if the car spins."""


class Telemetry(gym.ObservationWrapper[Any, Any, Any]):
    """Change CarRacing's observation to ``{"pixels": picture, "observation": float32 [7]}``.

    The vector contains the quantities of the bars at the bottom of the picture, which an encoder can hardly read. They
    are scaled to about -1 to 1:

    =====  ==============================================================  ==============  ======
    index  quantity                                                        unit            factor
    =====  ==============================================================  ==============  ======
    0      speed of the hull                                               length unit/s   0.01
    1-4    angular speeds of the wheels: front left and right, then rear   rad/s           0.01
    5      angle of the front left wheel to the hull, left positive        rad             2.5
    6      angular velocity of the hull, counterclockwise positive         rad/s           0.25
    =====  ==============================================================  ==============  ======

    Inside of ``frame_skip`` they are those of the last frame.

    Args:
        environment: CarRacing, with only the picture as its observation.

    Raises:
        EnvironmentArgumentError: it is another environment, or its observation is not just the picture.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        super().__init__(environment)
        space = environment.observation_space
        if not hasattr(environment.unwrapped, "car") or not is_image(space):
            raise EnvironmentArgumentError(
                f"wrappers: telemetry reads the car of CarRacing-v3 and adds it to its picture, got "
                f"{environment} with {space}; remove it"
            )
        numbers = spaces.Box(-np.inf, np.inf, (7,), np.float32)
        self.observation_space = spaces.Dict({"observation": numbers, "pixels": space})

    def observation(self, observation: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the picture and the state of the car."""
        return {"pixels": observation, "observation": read(self.unwrapped.car)}  # type: ignore[attr-defined]


def read(car: Any) -> NDArray[np.float32]:
    """Return the state of a car as a scaled vector.

    Args:
        car: Gymnasium's ``Car``.

    Returns:
        ``[7]``, in the order and scale of ``Telemetry``.
    """
    wheels, velocity = car.wheels, car.hull.linearVelocity
    return np.array(
        [
            SPEED * np.hypot(velocity[0], velocity[1]),
            *(WHEEL_SPEED * wheel.omega for wheel in wheels),
            STEERING * wheels[0].joint.angle,
            ANGULAR_VELOCITY * car.hull.angularVelocity,
        ],
        np.float32,
    )
