"""``tesserl topologies``: list every network that can be configured, measured on the meta device."""

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from tesserl_configs import ConfigError
from tesserl_configs.fusion import Trunk
from tesserl_configs.nn import HeadsConfig
from tesserl_configs.vision import Vision
from tesserl_environments import ObservationLayout
from tesserl_trainer.console.tables import aligned
from tesserl_trainer.networks.bodies import build_body
from tesserl_trainer.networks.building import policy_network, quantile_network
from tesserl_trainer.networks.topology_cells import Cell, Options, cells, fusions, kinds

HF = {
    "vision.hf": {"model_type": "vit", "hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3},
    "trunk.hf_embedding": {"model_type": "bert", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}
"""Small models that stand in for those of Hugging Face, to avoid downloads."""
MLPS = ("mlp", "mlp")
BASE = "nn: at its defaults but for the kinds, without memory; dueling quantile heads, one body for policy and value"


def describe(image: tuple[int, int, int], vector: int, actions: int) -> dict[str, Any]:
    """Return the ``cells`` that build, the ``refused`` ones with reasons, and the number of ``duplicates``."""
    report: dict[str, Any] = {"image": list(image), "vector": vector, "actions": actions, "cells": [], "refused": []}
    with tempfile.TemporaryDirectory() as directory, torch.device("meta"):
        options = _hf_options(Path(directory))
        measure = functools.cache(lambda *body: _measure_body(_cell(*body), options, image, vector))
        heads = functools.cache(lambda family, streams, width: _heads(family, streams, width, options, actions))
        for cell in (cell for cell in cells() if not cell.is_duplicate):
            names = {name: getattr(cell, name) for name in ("family", "fusion", "vision", "trunk", "streams")}
            names["trunk"] = None if cell.fusion == "none" else cell.trunk
            body = measure(cell.fusion, cell.vision, cell.trunk)  # the same for all families and streams
            if isinstance(body, str):
                report["refused"].append({**names, "reason": body})
                continue
            count = body["body_parameters"] + heads(cell.family, cell.streams, body["features"])
            report["cells"].append({**names, **body, "parameters": count})
    report["duplicates"] = sum(cell.is_duplicate for cell in cells())
    return report


def _cell(fusion: str, vision: str, trunk: str) -> Cell:
    """Describe the body of one combination."""
    return Cell("quantile", fusion, vision, trunk, MLPS)


def _measure_body(cell: Cell, options: Options, image: tuple[int, int, int], vector: int) -> dict[str, Any] | str:
    """Return width, parameters and token flow of the body of a cell, or the reason why it is refused."""
    observation: spaces.Space[Any] = spaces.Box(-1, 1, (vector,))
    if cell.vision != "none":
        channels, height, width = image
        picture = spaces.Box(0, 255, (channels, height, width), np.uint8)
        observation = spaces.Dict({"image": picture, "vector": observation})
    try:
        body = build_body(cell.config(options), ObservationLayout(observation, channels="first"))
    except ConfigError as error:
        return str(error)
    return {"features": body.out_features, "body_parameters": count_parameters(body), "flow": flow(body)}


def flow(body: nn.Module) -> str:
    """Describe how a body transforms its inputs: widths, tokens, the trunk's output, the features."""
    part: Any = body
    steps = []
    if part.vision is not None:
        tokens = f"{part.vision.num_tokens} x " if getattr(part, "all_image_tokens", False) else ""
        steps.append(f"image {tokens}{part.vision.out_features}")
    if part.vector is not None:
        steps.append(f"vector {part.vector.out_features}")
    joined = " + ".join(steps)
    if hasattr(getattr(part, "tokens", None), "num_tokens"):
        joined += f" -> {part.tokens.num_tokens} tokens of {part.trunk.out_features} -> {part.trunk.out_features}"
    return f"{joined} -> {part.out_features}"


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def _heads(family: str, streams: tuple[str, str], width: int, options: Options, actions: int) -> int:
    """Return the number of parameters of a family's heads on features of this width."""
    block = Cell(family, "none", "none", kinds(Trunk)[0], streams).block(options)["heads"]
    body = nn.Identity()
    body.in_keys, body.out_features = ["observation"], width  # type: ignore[assignment]
    if family == "policy":
        return count_parameters(policy_network(HeadsConfig(**block), body, spaces.Discrete(actions)))
    return count_parameters(quantile_network(HeadsConfig(**block), body, actions))


def _hf_options(directory: Path) -> Options:
    """Write the configurations of `HF` to directories; return the options that name them."""
    options = {}
    for part, config in HF.items():
        path = directory / part
        path.mkdir()
        width = config["hidden_size"]
        (path / "config.json").write_text(json.dumps({**config, "intermediate_size": 4 * int(str(width))}))
        options[part] = {"model": str(path), "local_files_only": True}
    return options


def text(report: dict[str, Any]) -> str:
    """Return a table: one line per body with its networks of MLP streams; then refusals and duplicates."""
    rows = [("fusion", "trunk", "vision", "features", "body", "quantile", "policy", "flow")]
    plain = {(_body(cell), cell["family"]): cell for cell in report["cells"] if cell["streams"] == MLPS}
    for body in dict.fromkeys(body for body, _ in plain):
        one = plain[body, "quantile"]
        quantile, policy = (f"{plain[body, family]['parameters']:,}" for family in ("quantile", "policy"))
        fusion, vision, trunk = body
        counts = str(one["features"]), f"{one['body_parameters']:,}", quantile, policy
        rows.append((fusion, trunk or "-", vision, *counts, one["flow"]))
    return "\n".join([_heading(report), "", *aligned(rows), "", *_summary(report)])


def _heading(report: dict[str, Any]) -> str:
    image = " x ".join(map(str, report["image"]))
    return (
        f"Images of {image}, {report['vector']} vector features, {report['actions']} actions; {BASE}.\n"
        "body, quantile, policy: parameters of the body, and of the networks with MLP streams on it.\n"
        f"hf: a ViT of {HF['vision.hf']['hidden_size']}, hf_embedding: a BERT of "
        f"{HF['trunk.hf_embedding']['hidden_size']}, two layers each."
    )


def _summary(report: dict[str, Any]) -> Iterator[str]:
    number, refused = len(report["cells"]), report["refused"]
    yield (
        f"{number} networks ({len(fusions())} fusions x {len(kinds(Vision))} encoders x {len(kinds(Trunk))} trunks x 2 "
        f"families x 4 pairs of streams, less {report['duplicates']} duplicates without a fusion and {len(refused)} "
        "refused)"
    )
    for (fusion, vision, trunk), reason in dict.fromkeys((_body(cell), cell["reason"]) for cell in refused):
        yield f"refused: {fusion}, {vision}, {trunk}: {reason}"


def _body(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["fusion"], cell["vision"], cell["trunk"]
