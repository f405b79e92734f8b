"""The rest of trajectories that are cut."""

import torch
from tensordict import TensorDict

from tesserl_grpo import pad_trajectories
from tesserl_training.loops.groups import expected_rest


def test_the_rest_of_a_cut_trajectory_is_the_mean_of_those_that_were_longer():
    def trajectory(rewards):
        return TensorDict({"next": {"reward": torch.tensor(rewards).unsqueeze(-1)}}, [len(rewards)])

    rewards = [[1.0, 1.0], [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 8.0], [5.0], [7.0, 7.0]]
    batch = pad_trajectories([trajectory(item) for item in rewards], [0, 0, 0, 1, 1])
    rest = expected_rest(batch, discount=0.5)
    assert rest.tolist() == [((3 + 0.5 * 4) + 8) / 2, 0.0, 4.0, 7.0, 0.0]
