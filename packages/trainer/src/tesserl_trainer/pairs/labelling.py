"""Serve the page on which people judge pairs."""

import signal
import threading
import webbrowser
from pathlib import Path
from typing import Any

import click

from tesserl_preference_data import StoreError
from tesserl_preference_data.labelling import LabellingSession, LabelServer
from tesserl_preference_data.trajectories import is_trajectories, load_trajectories
from tesserl_trainer.pairs.making import make_store
from tesserl_trainer.signals import Stopped, on_signals
from tesserl_trainer.usage import ArgumentError


def label_store(
    path: Path,
    *,
    out: Path | None = None,
    name: str = "person",
    question: str = "Which one does better?",
    port: int = 0,
    fps: float = 20.0,
    open_page: bool = True,
    **drawing: Any,
) -> dict[str, Any]:
    """Serve the page until Ctrl-C.

    Args:
        path: directory of pairs, or of trajectories, from which pairs are drawn the first time.
        out: directory of the pairs drawn from trajectories; None: ``path`` with ``-pairs`` appended.
        name: name of the judge.
        question: question on the page.
        port: port of the page; 0 for any free port.
        fps: steps per second on the page.
        open_page: open the page in a browser.
        **drawing: options for drawing pairs from trajectories, see ``make_store``.

    Returns:
        ``path`` of the pairs, ``total``, ``judged`` and ``counts`` of the answers.

    Raises:
        ArgumentError: the name is empty, or has the suffix reserved for answers that were taken back.
        StoreError: there are no pairs and no trajectories, or they have no pictures.
        OSError: the port is taken.
        Stopped: SIGTERM or SIGHUP stopped the server; every answer is saved.
    """
    pairs = path
    if is_trajectories(path):
        pairs = path.with_name(f"{path.name}-pairs") if out is None else out
        if not pairs.exists():
            if not load_trajectories(path, verify=False).has_frames:
                raise StoreError(f"{path} has no pictures to show; collect episodes with --frames")
            make_store([path], out=pairs, labelled=False, **drawing)
    try:
        session = LabellingSession(pairs, name=name)
    except StoreError:
        raise
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    stopped, received = threading.Event(), list[int]()

    def stop(signum: int) -> None:
        received.append(signum)
        stopped.set()

    with on_signals(stop), LabelServer(session, port=port, question=question, fps=fps) as server:
        click.echo(f"{server.url}  (Ctrl-C ends; every answer is saved at once)", err=True)
        if open_page:
            webbrowser.open(server.url)
        stopped.wait()
    if received[0] != signal.SIGINT:
        raise Stopped(received[0], f"stopped by {signal.Signals(received[0]).name}; every answer is saved in {pairs}")
    state = session.state()
    return {"path": str(pairs), **{key: state[key] for key in ("total", "judged", "counts")}}
