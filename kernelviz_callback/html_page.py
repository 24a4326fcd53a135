"""HTML pages in one file: join script modules into one script, and embed data safely."""

import base64
import hashlib
import json
import posixpath
import re
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

_IMPORT = re.compile(r'^import \{[^}]*\} from "(\.{1,2}/[\w./]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async |class |const |function |let )", re.MULTILINE)


def whole_page(body: str, *, title: str, style: str, script: str, sources: str) -> str:
    """Make a page with one style sheet and one module, whose digest the security policy names.

    Args:
        body: HTML of the body, without the script.
        title: Title of the page, any text.
        style: CSS.
        script: The module.
        sources: Directives of the content security policy for images and workers:
            ``"img-src data:"``. Nothing else can be loaded.
    """
    return Template(package_text("html_page.html")).substitute(
        title=as_html_text(title),
        style=style,
        script=script,
        digest=script_digest(script),
        sources=sources,
        body=body,
    )


def bundled_modules(*paths: str) -> str:
    """Join script modules and everything that they import into one script.

    A module comes after the modules that it imports. All modules share one scope afterwards, so no
    two of them may declare the same name.

    Args:
        paths: Paths of modules inside the package: ``"tensorboard_plugin/static/app.js"``.

    Returns:
        A script without imports and exports.
    """
    texts: dict[str, str] = {}

    def add(path: str) -> None:
        if path in texts:
            return
        text = package_text(path)
        for imported in _IMPORT.findall(text):
            add(posixpath.normpath(posixpath.join(posixpath.dirname(path), imported)))
        texts[path] = _EXPORT.sub("", _IMPORT.sub("", text))

    for path in paths:
        add(path)
    return "\n".join(texts.values())


def package_text(path: str) -> str:
    """Read a text file of the package: a module, a style sheet or a page."""
    return files("kernelviz_callback").joinpath(path).read_text(encoding="utf-8")


def script_digest(script: str) -> str:
    """Return the SHA-256 digest of a script, as a content security policy names it."""
    return as_base64(hashlib.sha256(script.encode()).digest())


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
