"""HTML that is safe by construction: a text stays a text in it.

`tag` escapes every child and attribute that is not `Markup`, and only this module turns texts into `Markup`.
"""

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any

_VOID = frozenset({"br", "img", "input", "link", "meta"})
_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """A piece of HTML."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int | bool | None) -> Markup:
    """Returns an element.

    Args:
        name: Its name, such as 'td'.
        children: Its content: `Markup` as it is, other texts escaped.
        attributes: `class_` is `class`, `data_key` is `data-key`. An attribute that is True has no value; one that is
            None or False is left out.
    """
    opening = name
    for attribute, value in attributes.items():
        if value is None or value is False:
            continue
        opening += f" {attribute.rstrip('_').replace('_', '-')}"
        if value is not True:
            opening += f'="{escaped(str(value))}"'
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Markup:
    """Returns pieces one after another: `Markup` as it is, other texts escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escaped(child) for child in children))


def json_block(name: str, value: Any) -> Markup:
    """Returns a `script` element with data for the scripts of the page, which find it by its id.

    No text in it can end the element or begin another one, since JSON escapes replace `<` and everything outside ASCII.
    """
    content = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="{escaped(name)}">{content}</script>')


def own_code(name: str, code: str) -> Markup:
    """Returns a `script` or `style` element with code of this project.

    Raises:
        ValueError: If the code contains something that ends such an element or begins a comment in it.
    """
    if re.search(r"</(script|style)|<!--", code, re.IGNORECASE):
        raise ValueError(f"code in a {name} element must not contain </script, </style or <!--")
    return Markup(f"<{name}>{code}</{name}>")


def escaped(text: str) -> str:
    """Returns a text escaped for HTML, for an element or a quoted attribute."""
    # Characters that HTML does not allow are replaced, because parsers treat them differently.
    return escape(_NOT_IN_HTML.sub("\ufffd", text))
