"""The car of CarRacing in numbers, beside its picture."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from tesserl_environments.errors import EnvironmentArgumentError
from tesserl_environments.observations import is_image

SPEED = 0.01
"""Per length unit a second; the car reaches about 90."""
WHEEL_SPEED = 0.01
"""Per rad/s; a wheel that grips reaches about 170, one that spins more."""
STEERING = 2.5
"""Per rad; the joint stops at 0.4."""
ANGULAR_VELOCITY = 0.25
"""Per rad/s; a car that spins reaches about 4."""


class Telemetry(gym.ObservationWrapper[Any, Any, Any]):
    """Turns the picture of CarRacing into ``{"pixels": picture, "observation": float32 [7]}``.

    What the picture shows as bars at its bottom, which an encoder can hardly read, as numbers of about -1 to 1:

    =====  ==============================================================  ==============  ======
    index  quantity                                                        unit            factor
    =====  ==============================================================  ==============  ======
    0      speed of the hull                                               length unit/s   0.01
    1-4    angular speeds of the wheels: front left and right, then rear   rad/s           0.01
    5      angle of the front left wheel to the hull, left positive        rad             2.5
    6      angular velocity of the hull, counterclockwise positive         rad/s           0.25
    =====  ==============================================================  ==============  ======

    They are read when the observation is made: behind ``frame_skip`` they are those of the last frame.

    Args:
        environment: CarRacing, whose observation is its picture.

    Raises:
        EnvironmentArgumentError: it is another environment, or its observation is not a picture alone.
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
    """Return the state of a car as numbers.

    Args:
        car: Gymnasium's ``Car``.

    Returns:
        ``[7]``, in the order and the scale of ``Telemetry``.
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
