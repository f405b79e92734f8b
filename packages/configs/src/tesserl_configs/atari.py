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
    """ale_py's AtariVectorEnv, its options by its own names; evaluation plays whole games with the game's rewards."""

    frameskip: Count = Field(
        default=4, description="Frames per action, >= 1 (Mnih et al. 2015: 4). Environment steps count actions."
    )
    maxpool: bool = Field(default=True, description="Pixels are the larger ones of the last two frames (Mnih et al.).")
    grayscale: bool = Field(default=True, description="One grey channel (Mnih et al. 2015); false: three colours.")
    img_height: Pixels = Field(default=84, description="Height of an image, in pixels, >= 1 (Mnih et al. 2015: 84).")
    img_width: Pixels = Field(default=84, description="Width of an image, in pixels, >= 1 (Mnih et al. 2015: 84).")
    stack_num: Stack = Field(default=4, description="Images per observation, >= 1 (Mnih et al. 2015: 4).")
    repeat_action_probability: Fraction = Field(
        default=0.0,
        description=(
            "Sticky actions: probability that a frame repeats the action before, in [0, 1] "
            "(Machado et al. 2018, arXiv:1709.06009: 0.25; Mnih et al. 2015: 0)."
        ),
    )
    reward_clipping: bool = Field(
        default=True, description="Training sees rewards clipped to [-1, 1] (Mnih et al. 2015)."
    )
    episodic_life: bool = Field(
        default=False,
        description="In training, the loss of a life ends the episode (37 details: true; Machado et al. 2018: false).",
    )
    life_loss_info: bool = Field(
        default=False, description="In training, the loss of a life sets terminated and the game goes on."
    )
    noop_max: CountFromZero = Field(
        default=30, description="At most so many idle frames at the start of an episode, >= 0 (Mnih et al. 2015: 30)."
    )
    use_fire_reset: bool = Field(
        default=True, description="Press fire at the start of games that wait for it (37 details)."
    )
    full_action_space: bool = Field(
        default=False, description="All 18 actions of the console; false: those that the game uses."
    )
    continuous: bool = Field(
        default=False,
        description="Continuous actions: radius and angle of the joystick, fire (arXiv:2410.23810).",
    )
    continuous_action_threshold: Fraction = Field(
        default=0.5, description="Radius beyond which the joystick counts as pushed, in [0, 1]; of continuous alone."
    )
    max_num_frames_per_episode: Frames = Field(
        default=108_000, description="Frames after which an episode is truncated, >= 1 (30 minutes, as is customary)."
    )
    num_threads: ThreadsFromZero = Field(default=0, description="Threads that play, >= 0; 0: one for each core.")
    thread_affinity_offset: ThreadOffset = Field(
        default=-1, description="CPU core of the first thread, >= 0; -1: wherever the system puts it."
    )
