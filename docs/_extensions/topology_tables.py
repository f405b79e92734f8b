"""Tables of what the network builder makes, for ``networks.md``; measured on the meta device, never typed by hand.

Writes ``reference/tables/encoders.md`` (widths of the image encoders) and ``topologies.md`` (what
``tesserl topologies --json`` prints, a row for each fusion and encoder).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tesserl_configs.vision import CNNVision, ImpalaVision
from tesserl_trainer.inspect.topologies import describe
from tesserl_trainer.networks.encoders import build_vision

IMAGES = ((1, 64, 64), (1, 84, 84), (4, 84, 84), (3, 120, 160))
ENCODERS = {
    "kind `cnn`, preset `nature` (the default)": CNNVision(preset="nature"),
    "kind `cnn`, preset `compact`": CNNVision(preset="compact"),
    "kind `impala` (its default)": ImpalaVision(),
    "kind `impala`, `width: 2`": ImpalaVision(width=2),
    "kind `impala`, `width: 2, pool_size: 6` (Beyond The Rainbow)": ImpalaVision(width=2, pool_size=6),
}
IMAGE, VECTOR, ACTIONS = (1, 64, 64), 16, 6


def encoders() -> str:
    """Width and parameters of each encoder on each image."""
    rows = []
    with torch.device("meta"):
        for name, config in ENCODERS.items():
            built = [build_vision(config, image) for image in IMAGES]
            count = sum(parameter.numel() for parameter in built[0].parameters())
            rows.append([name, *(f"{encoder.out_features:,}" for encoder in built), f"{count:,}"])
    sizes = [" x ".join(map(str, image)) for image in IMAGES]
    return table(["`nn.vision`", *sizes, f"parameters at {sizes[0]}"], rows)


def topologies() -> str:
    """Every body, and what the heads add to it."""
    report = describe(IMAGE, VECTOR, ACTIONS)
    cells = report["cells"]
    trunks = list(dict.fromkeys(cell["trunk"] for cell in cells if cell["trunk"]))
    bodies: dict[tuple[str, str], dict[str | None, dict[str, Any]]] = {}
    for cell in cells:
        bodies.setdefault((cell["fusion"], cell["vision"]), {})[cell["trunk"]] = cell
    rows = []
    for (fusion, vision), found in bodies.items():
        flow = list(found.values())[-1]["flow"]  # of the last trunk: under vision_transformer the first has no tokens
        counts = [f"{found[trunk]['body_parameters']:,}" if trunk in found else "" for trunk in trunks]
        counts[0] = counts[0] or f"{found[None]['body_parameters']:,} (no trunk)"
        rows.append([f"`{fusion}`", f"`{vision}`", flow, *counts])
    intro = [
        f"Images of {' x '.join(map(str, IMAGE))}, {VECTOR} vector features, {ACTIONS} actions, and every option of "
        f"`nn` at its default. {len(cells):,} networks build and {len(report['refused'])} are refused; "
        f"{report['duplicates']} more would be written differently and be the same network, as there is no trunk "
        "without a fusion. The last columns are parameters of the body with each trunk.",
        "",
    ]
    refused = [f"- refused: {text}" for text in dict.fromkeys(cell["reason"] for cell in report["refused"])]
    header = ["fusion", "vision", "widths and tokens", *(f"`{trunk}`" for trunk in trunks)]
    return "\n".join([*intro, table(header, rows), "", *refused, "", *heads(cells)])


def heads(cells: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of the table of what the heads add to a body that ends in ``out_features``."""
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        key = (cell["family"], " + ".join(f"`{kind}`" for kind in cell["streams"]))
        if cell["fusion"] != "none" and key not in rows:
            rows[key] = [*key, str(cell["features"]), f"{cell['parameters'] - cell['body_parameters']:,}"]
    intro = (
        "What the heads add: two streams of a dueling quantile head with its embedding, or of a policy and its value."
    )
    return [intro, "", table(["family", "streams", "features", "parameters"], rows.values())]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def generate(app: Any) -> None:
    """Write the tables."""
    target = Path(app.srcdir) / "reference" / "tables"
    target.mkdir(parents=True, exist_ok=True)
    for name, text in (("encoders", encoders()), ("topologies", topologies())):
        path = target / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
