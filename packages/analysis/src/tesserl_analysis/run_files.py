"""Names of the files and directories in a run's directory. Imports nothing."""

CONFIG = "config.yaml"
"""The resolved configuration."""

IDENTITY = "run.json"
"""The run's id and the digests of its configuration."""

METRICS = "metrics.csv"
"""The record of metrics, see `tesserl_analysis.record`."""

TENSORBOARD = "tensorboard"
"""Directory of event files with the metrics of the record."""

CHECKPOINTS = "checkpoints"
"""Directory with `LATEST`, `BEST` and one directory per checkpoint, which contains a `MANIFEST`."""

MANIFEST, LATEST, BEST = "manifest.json", "latest.json", "best.json"

REPLAY = "replay"
"""Directory of stored transitions."""

EVALUATION = "evaluation.json"
"""Returns of the best weights on seeds that training never used; a run writes it last."""

CURVE = "curve.png"
"""Plot of the returns of training and evaluation."""

VIDEOS = "videos"
"""Directory of videos."""

REPORT = "report.html"
"""The page of ``tesserl report``."""

LAUNCH = "launch.json"
"""The ``torchrun`` command that started the run."""

LOG = "train.log"
"""Standard output and standard error of a run of a sweep."""

ORDER = "sweep.json"
"""The order of the runs, in the directory of a sweep."""
