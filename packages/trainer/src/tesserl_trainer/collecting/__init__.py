"""Steps of environments as data: collectors, episodes, groups, evaluation, rollouts."""
