"""Saved networks on the Hugging Face hub; needs the extra ``tesserl-nn-components[hub]``, imported on first use."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from tesserl_nn_components.pretrained import CARD, CONFIG, WEIGHTS, read_config, saved_file


def push_to_hub(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload network",
) -> str:
    """Upload the three files of a saved network to the Hugging Face hub; other files of the directory stay.

    It uses the credentials of ``huggingface_hub`` (``hf auth login``).

    Args:
        directory: written by :func:`save_pretrained`.
        repo_id: ``"owner/name"``; the repository is created if it does not exist.
        private: whether a new repository is private.
        revision: branch; None for the main one.
        commit_message: message of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ImportError: if huggingface_hub is not installed.
        FileNotFoundError: if the directory holds no saved network.
    """
    hub = _hub()
    read_config(directory)
    saved_file(directory, WEIGHTS)
    api = hub.HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=str(directory),
        allow_patterns=[WEIGHTS, CONFIG, CARD],
        revision=revision,
        commit_message=commit_message,
    )
    return str(commit.commit_url)


def pull_from_hub(repo_id: str, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Download the three files of a saved network from the Hugging Face hub, and no others.

    Args:
        repo_id: ``"owner/name"``.
        revision: branch, tag or commit; name a commit to always get the same weights.
        local_files_only: never download; use the cached files of an earlier call.

    Returns:
        The directory, for :func:`from_pretrained` and :func:`load_pretrained`.

    Raises:
        ImportError: if huggingface_hub is not installed.
    """
    files = [WEIGHTS, CONFIG, CARD]
    return Path(
        _hub().snapshot_download(repo_id, revision=revision, local_files_only=local_files_only, allow_patterns=files)
    )


def _hub() -> Any:
    """Import huggingface_hub.

    Raises:
        ImportError: if it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError('the hub needs huggingface_hub: install "tesserl-nn-components[hub]"') from error
