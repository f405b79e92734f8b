"""``environment.atari:``, the vector environment of ale_py."""

from __future__ import annotations

from pydantic import Field

from tesserl_configs.base import (
    Block,
    Count,
    CountFromZero,
    Fraction,
    Frames,
    Pixels,
    Stack,
    ThreadOffset,
    ThreadsFromZero,
)


class AtariConfig(Block):
    """Options of ale_py's AtariVectorEnv, by its own names; evaluation plays whole games with unclipped rewards."""

    frameskip: Count = Field(
        default=4,
        description=(
            "Number of frames that each action is repeated for, >= 1; environment steps count actions (Mnih et al. "
            "2015: 4)."
        ),
    )
    maxpool: bool = Field(
        default=True,
        description=(
            "Take the larger value of each pixel over the last two frames, against flicker (Mnih et al. 2015)."
        ),
    )
    grayscale: bool = Field(
        default=True,
        description="Convert images to one grey channel; false keeps three colour channels (Mnih et al. 2015: true).",
    )
    img_height: Pixels = Field(default=84, description="Height of the images, in pixels, >= 1 (Mnih et al. 2015: 84).")
    img_width: Pixels = Field(default=84, description="Width of the images, in pixels, >= 1 (Mnih et al. 2015: 84).")
    stack_num: Stack = Field(
        default=4, description="Number of images stacked in an observation, >= 1 (Mnih et al. 2015: 4)."
    )
    repeat_action_probability: Fraction = Field(
        default=0.0,
        description=(
            "Probability that a frame repeats the previous action (sticky actions), in [0, 1] (Machado et al. 2018, "
            "arXiv:1709.06009: 0.25; Mnih et al. 2015: 0)."
        ),
    )
    reward_clipping: bool = Field(
        default=True, description="Clip the rewards of training to [-1, 1] (Mnih et al. 2015)."
    )
    episodic_life: bool = Field(
        default=False,
        description="End a training episode when a life is lost (37 details: true; Machado et al. 2018: false).",
    )
    life_loss_info: bool = Field(
        default=False, description="Set terminated when a life is lost in training, but continue the game."
    )
    noop_max: CountFromZero = Field(
        default=30,
        description="Largest number of no-op frames at the start of an episode, >= 0 (Mnih et al. 2015: 30).",
    )
    use_fire_reset: bool = Field(
        default=True, description="Press fire after a reset, in games that wait for it (37 details)."
    )
    full_action_space: bool = Field(
        default=False, description="Use all 18 actions of the console; false uses only the actions that the game needs."
    )
    continuous: bool = Field(
        default=False,
        description="Use continuous actions: radius and angle of the joystick, and fire (arXiv:2410.23810).",
    )
    continuous_action_threshold: Fraction = Field(
        default=0.5,
        description="Radius beyond which the joystick counts as pushed, in [0, 1]; used only if continuous is true.",
    )
    max_num_frames_per_episode: Frames = Field(
        default=108_000,
        description="Number of frames after which an episode is truncated, >= 1; the usual 108,000 are 30 minutes.",
    )
    num_threads: ThreadsFromZero = Field(
        default=0, description="Number of threads that step the games, >= 0; 0 uses one thread per core."
    )
    thread_affinity_offset: ThreadOffset = Field(
        default=-1, description="CPU core of the first thread, >= 0; -1 lets the operating system choose."
    )
