"""HTML pages in one file: the viewer of the Kernels tab with data inside."""

import base64
import json
import re
from html import escape
from importlib.resources import files
from typing import Any

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async |class |const |function |let )", re.MULTILINE)


def bundled_modules(*modules: str) -> str:
    """Modules of the viewer and all that they import as one script, what is imported first."""
    texts: dict[str, str] = {}

    def take(name: str) -> None:
        if name not in texts:
            text = static_text(name)
            for imported in _IMPORT.findall(text):
                take(imported)
            texts[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    for name in modules:
        take(name)
    return "\n".join(texts.values())


def static_text(name: str) -> str:
    """Read a file of the Kernels tab: a module or a style sheet."""
    return (
        files("kernelviz_callback.tensorboard_plugin")
        .joinpath("static")
        .joinpath(name)
        .read_text(encoding="utf-8")
    )


def as_html_text(text: str) -> str:
    """Escape a text for HTML."""
    # A file name may hold bytes that are not text: they become question marks.
    return escape(text.encode("utf-8", "replace").decode())


def as_script_data(data: dict[str, Any]) -> str:
    """Write data as JSON that may stand inside a ``<script>`` element."""
    # Without "<" no name of a layer can end the element.
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def as_base64(content: bytes) -> str:
    """Write bytes as base64 text."""
    return base64.b64encode(content).decode()
