"""Options of launchers: their values, and the messages about wrong ones."""

import pytest

from tesserl_configs.errors import ConfigError
from tesserl_configs.launchers import LocalLauncher, RayLauncher, SlurmLauncher, read_launcher


def test_options_are_read_as_yaml():
    found = read_launcher("slurm", ["partition=gpu", "time_limit=30", "memory=16", "setup=[module load cuda, date]"])
    expected = SlurmLauncher(partition="gpu", time_limit=30, memory=16.0, setup=("module load cuda", "date"))
    assert found == expected
    assert read_launcher("ray", ["address=auto", "gpus=0.5"]) == RayLauncher(address="auto", gpus=0.5)
    assert read_launcher("local") == LocalLauncher()


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        ("slurm", "partiton=gpu", "partiton: unknown key; did you mean partition?"),
        ("slurm", "time_limit=0", "time_limit: expected a value >= 1, got 0"),
        ("slurm", "gpus=two", 'gpus: expected a whole number, got "two"'),
        ("slurm", "cluster=pbs", 'cluster: expected one of slurm, local, got "pbs"'),
        ("slurm", "time_limit=1", "signal_delay: expected less than the seconds of time_limit (60), got 90"),
        ("ray", "gpus=-1", "gpus: expected a value >= 0, got -1"),
        ("ray", "gpus", "gpus: expected KEY=VALUE"),
        ("ray", "address={", "address={: "),
        ("local", "cpus=3", "cpus: unknown key"),
    ],
)
def test_a_wrong_option_is_named(kind, option, message):
    with pytest.raises(ConfigError) as caught:
        read_launcher(kind, [option])
    assert str(caught.value).startswith(f"--launcher-option {message}")
