"""The report of an experiment as one HTML file, which fetches nothing and is readable without scripts.

The page consists of sections (`sections.py`) and a frame with its style and scripts (`assets/`). A live page
(`live_server.py`) is the same page, but fetches its sections again and again.
"""

import hashlib
import re
import time
from base64 import b64encode
from pathlib import Path

from cluster.reports.formats.html import Markup, joined, own_code, tag
from cluster.reports.page import pictures as pictures
from cluster.reports.page import sections as sections
from cluster.reports.page.choice import choice
from cluster.reports.page.data import MAX_DATA_GROUPS, PageData
from cluster.reports.page.effects import effects
from cluster.reports.page.race import race
from cluster.results.results import Results
from cluster.storage.folders import ExperimentFolder

_ASSETS = Path(__file__).parent / "assets"
_TABLE = ("charts.js", "address.js", "parallel.js", "table.js")
_VIEWER = ("vendor/three.min.js", "viewer.js")
_START = ("start.js",)

_FEW_SECTIONS = 11
"""With more sections, the table of contents is closed at first."""


def page(folder: ExperimentFolder, results: Results | None = None) -> str:
    """Returns the report of an experiment's folder, also while the experiment runs.

    Args:
        folder: The experiment's folder.
        results: Its results; None to read them.

    Raises:
        NoResultsError: If there is no experiment, or if its description is broken.
        StorageError: If a file cannot be read.
    """
    data = PageData.read(folder, results)
    scripts = [*_TABLE, *(_VIEWER if data.examples is not None else ()), *_START]
    return shell(data.table.name, content(data, folder, pictures.draw(data, folder)), scripts)


def live_page(data: PageData, folder: ExperimentFolder, drawn: pictures.Pictures) -> str:
    """Returns the page that fetches its sections from its server."""
    scripts = [*_TABLE, *_VIEWER, "live.js", *_START]
    return shell(data.table.name, content(data, folder, drawn), scripts, is_live=True)


def content(data: PageData, folder: ExperimentFolder, drawn: pictures.Pictures) -> Markup:
    """Returns the table of contents and the sections of the page.

    Args:
        data: The data that they show.
        folder: The experiment's folder.
        drawn: The pictures.
    """
    shown = joined(
        [
            sections.summary(data),
            sections.combinations(data),
            *race(data),
            *(
                section
                for of in data.by_data[:MAX_DATA_GROUPS]
                for section in (*sections.best(of), *effects(of), *choice(of))
            ),
            *drawn.sections,
            *pictures.examples(data, drawn.of_examples),
            *sections.failures(data),
            sections.configuration(data),
            sections.reproduction(data, folder),
        ]
    )
    return joined([_contents(shown), shown])


def shell(name: str, main: Markup, scripts: list[str], *, is_live: bool = False) -> str:
    """Returns a whole page around its sections.

    Args:
        name: The experiment's name.
        main: The sections.
        scripts: Files of `assets/`, in the order in which they run.
        is_live: Whether it may connect to its server.
    """
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    codes = [(_ASSETS / script).read_text(encoding="utf-8") for script in scripts]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, codes))}",
            f"style-src {_hash(style)}",
            "img-src data:",
            f"connect-src {'self' if is_live else 'none'!r}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # The script of a live page shows the time.
    as_of = "" if is_live else f", as of {time.strftime('%Y-%m-%d %H:%M %Z')}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name} – PoseTune"),
        tag("link", rel="icon", href="data:,"),
        own_code("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the result", href="#summary", class_="skip"),
        tag("header", tag("h1", name), tag("p", f"Report of a hyperparameter search{as_of}", class_="subtitle")),
        tag("main", main),
        tag("div", id="announcement", role="status", class_="hidden"),
        *(own_code("script", code) for code in codes),
        data_live=is_live,
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _contents(shown: Markup) -> Markup:
    # Each section has one `h2`: see `section`.
    titles = re.findall(r'<h2 id="([^"]+)-title">(.*?)</h2>', shown)
    links = [tag("li", tag("a", Markup(title), href=f"#{name}")) for name, title in titles]
    listed = tag("details", tag("summary", "Contents"), tag("ul", *links), open=len(links) <= _FEW_SECTIONS)
    return tag("nav", listed, id="contents", aria_label="Contents")


def _hash(code: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
