"""The side of a worker that answers. Worker processes import this module, so it imports little."""

import os
import signal

import numpy as np


class Answering:
    """Answers as a collector worker does, with its number; stops its own process or raises if it is asked to."""

    def __init__(self, worker, life, report):
        self.worker = worker

    def answer(self, name, arguments):
        if name == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if name == "raise":
            raise LookupError("the task broke")
        return np.full(arguments["size"], self.worker)

    def close(self):
        pass
