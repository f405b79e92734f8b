"""The ``tesserl`` command, which ends at the first step of a CartPole."""

import os
import sys

from gymnasium.envs.classic_control.cartpole import CartPoleEnv  # what the command imports too

from tesserl_trainer.cli import main

if __name__ == "__main__":
    CartPoleEnv.step = lambda *_: os._exit(0)
    main(sys.argv[1:])
