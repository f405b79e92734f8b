"""Render the page of ``tesserl report``: self-contained HTML; ElementTree escapes all text."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
"""Content security policy of the page: no scripts, no external resources."""

STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --faint: #59636e; }
@media (prefers-color-scheme: dark) { :root { --line: #3d444d; --soft: #151b23; --faint: #9198a1; } }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.faint { color: var(--faint); margin-top: .25rem; }
.big { font-size: 1.6rem; font-weight: 600; margin: 1rem 0 0; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem 1.5rem .3rem 0; border-bottom: 1px solid var(--line); }
th { text-align: left; font-weight: 600; } td { font-variant-numeric: tabular-nums; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow-x: auto; }
img, video { max-width: 100%; height: auto; display: block; }
video { border: 1px solid var(--line); }
summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class Report:
    """Content of a page."""

    title: str
    status: str
    headline: str
    results: Mapping[str, str]
    notes: Iterable[str]
    curves: tuple[str, str] | None  # SVG for light and for dark mode
    film: tuple[str, bytes] | None  # name and content of an MP4 file
    commands: Mapping[str, str]  # purpose -> command
    config: str
    versions: Mapping[str, str]


def render(report: Report) -> str:
    """Return the page as HTML."""
    page = Element("html", lang="en")
    head, body = SubElement(page, "head"), SubElement(page, "body")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _add(head, "title", report.title)
    _add(head, "style", STYLE)
    _add(body, "h1", report.title)
    _add(body, "p", report.status, "faint")
    _add(body, "p", report.headline, "big")
    _add_table(body, report.results)
    for note in report.notes:
        _add(body, "p", note)
    _add(body, "h2", "Curves")
    if report.curves is None:
        _add(body, "p", "This run has recorded no metrics yet.")
    else:
        _add_curves(body, *report.curves)
    if report.film is not None:
        _add(body, "h2", "Film")
        _add_film(body, *report.film)
    _add(body, "h2", "Use this run")
    _add(body, "p", "From the directory in which the report was made:")
    _add(body, "pre", "\n".join(f"{command}   # {meaning}" for meaning, command in report.commands.items()))
    _add(body, "h2", "Configuration")
    details = SubElement(body, "details", open="open")
    _add(details, "summary", "config.yaml, every key")
    _add(details, "pre", report.config)
    _add(body, "h2", "Versions")
    _add_table(body, report.versions)
    return "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _add(parent: Element, tag: str, text: str, style: str = "") -> None:
    SubElement(parent, tag, {"class": style} if style else {}).text = text


def _add_table(parent: Element, rows: Mapping[str, str]) -> None:
    table = SubElement(parent, "table")
    for name, value in rows.items():
        row = SubElement(table, "tr")
        _add(row, "th", name)
        _add(row, "td", value)


def _add_curves(parent: Element, light: str, dark: str) -> None:
    """Add a picture with a light and a dark form; the browser shows the one for its colour scheme."""
    picture = SubElement(parent, "picture")
    srcset = _data_uri("image/svg+xml", dark.encode())
    SubElement(picture, "source", media="(prefers-color-scheme: dark)", srcset=srcset)
    alt = "Returns of training and evaluation, and the other metrics, over environment steps"
    SubElement(picture, "img", src=_data_uri("image/svg+xml", light.encode()), alt=alt)


def _add_film(parent: Element, name: str, content: bytes) -> None:
    source = _data_uri("video/mp4", content)
    SubElement(parent, "video", controls="", loop="", muted="", src=source)
    _add(parent, "p", name, "faint")


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
