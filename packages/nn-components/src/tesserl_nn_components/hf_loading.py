"""Loading of Hugging Face models: only from safetensors, and without running a model's code unless it is trusted."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

_SAFE = (
    "weights must be in model.safetensors, as other files are pickles and are not read; save the model with "
    "save_pretrained of transformers, or name a revision that has the file"
)


def hf_model(
    model: Any,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    backbone: bool = False,
) -> Any:
    """Return a ``transformers`` model in training mode: loaded by name, built from a configuration, or given.

    Weights are read from safetensors only, never from a pickle such as ``pytorch_model.bin``.

    Args:
        model: name or local directory, configuration object, or module.
        revision: branch, tag or commit on the hub.
        local_files_only: never download.
        trust_remote_code: run code that the hub's repository contains.
        backbone: use ``AutoBackbone`` instead of ``AutoModel``.

    Raises:
        ImportError: if transformers is not installed; the message names the extra.
        ValueError: if loading the model would read a pickle, or run its code without ``trust_remote_code``.
    """
    if isinstance(model, nn.Module):
        return model
    library = _transformers()
    auto = library.AutoBackbone if backbone else library.AutoModel
    hub: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    if isinstance(model, str):
        config = library.AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code, **hub)
        _refuse_other_loaders(model, config, trusted=trust_remote_code, **hub)
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        if backbone:  # AutoBackbone.from_pretrained looks on the hub, and passes unknown names to timm
            with torch.device("meta"):
                auto, options = type(auto.from_config(config, **options)), {}
        try:
            built = auto.from_pretrained(model, config=config, use_safetensors=True, **options, **hub)
        except OSError as error:
            if "safetensors" not in str(error):
                raise
            raise ValueError(f"{model}: {_SAFE} ({' '.join(str(error).split())})") from error
    else:
        built = auto.from_config(model, trust_remote_code=trust_remote_code)
    # from_pretrained keeps half precision and sets evaluation mode; match the layers around the model instead
    return built.to(torch.get_default_dtype()).train()


def has_own_code(model: str, *, revision: str | None = None, local_files_only: bool = False) -> bool:
    """Return whether a model's repository contains code that ``trust_remote_code`` would run.

    Args:
        model: name on the hub or local directory.
        revision: branch, tag or commit on the hub.
        local_files_only: never download.

    Raises:
        ImportError: if transformers is not installed.
        OSError: if there is no such model.
    """
    config, _ = _transformers().PreTrainedConfig.get_config_dict(
        model, revision=revision, local_files_only=local_files_only
    )
    return "auto_map" in config


def _refuse_other_loaders(model: str, config: Any, *, trusted: bool, **hub: Any) -> None:
    """Reject models whose weights or attention a library other than transformers would load."""
    if not Path(model).is_dir() and Path(model).exists():
        raise ValueError(f"model must be a name on the hub or a local directory, got the file {model}")
    if config.model_type == "timm_backbone":
        raise ValueError(f"{model}: {_SAFE}; timm_backbone leaves the choice to timm, timm_wrapper does not")
    attention = getattr(config, "_attn_implementation", None)
    if "/" in str(attention) and not trusted:
        raise ValueError(f"{model}: its configuration names code to download for the attention, {attention}; remove it")
    if importlib.util.find_spec("peft") is not None:
        utilities = importlib.import_module("transformers.utils")
        if utilities.find_adapter_config_file(model, **hub) is not None:
            raise ValueError(f"{model}: {_SAFE}; an adapter must be merged into its model before")


def _transformers() -> Any:
    """Import transformers.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError('Hugging Face models need transformers: install "tesserl-nn-components[hf]"') from error
