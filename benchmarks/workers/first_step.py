"""Run the ``tesserl`` command, but exit at the first step of CartPole."""

import os
import sys

from gymnasium.envs.classic_control.cartpole import CartPoleEnv  # the command imports it too

from tesserl_trainer.cli import main

if __name__ == "__main__":
    CartPoleEnv.step = lambda *_: os._exit(0)
    main(sys.argv[1:])
