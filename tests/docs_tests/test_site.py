"""The documentation site, built without running the tutorial."""

import re
import subprocess
import sys

import pytest

from data_pipeline import augmenters, distorters, normalizers
from data_pipeline.augmenters import Augmenter
from data_pipeline.distorters import Distorter
from data_pipeline.normalizers import Normalizer
from posenet import losses, models
from posenet.losses import Loss
from posenet.models import Corrector
from tests.support import ROOT, members

FAMILIES = [
    *((augmenters, Augmenter), (distorters, Distorter), (normalizers, Normalizer)),
    *((losses, Loss), (models, Corrector)),
]

pytestmark = pytest.mark.slow


def build(source, folder):
    pytest.importorskip("furo", reason="the requirements of the site are not installed")
    pytest.importorskip("myst_nb", reason="the requirements of the site are not installed")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", ROOT / "docs"]
    command = [sys.executable, "-m", "sphinx", *options, "--doctree-dir", folder / "doctrees", source, folder / "site"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "site"


def test_has_a_page_for_each_document(site):
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("cluster/*.md")]
    documents += [ROOT / "docs/tutorial.ipynb", ROOT / "tune_runs/README.md", ROOT / "cluster/launch/README.md"]
    pages = [site / document.relative_to(ROOT).with_suffix(".html") for document in documents]
    assert [page for page in pages if not page.is_file()] == []


def test_begins_with_a_page_that_leads_to_the_first_one(site):
    (to,) = re.findall(r'url=([^"]*)"', (site / "index.html").read_text())
    assert (site / to).is_file()


def test_has_every_member_of_every_family_in_its_reference(site):
    text = "".join(page.read_text() for page in (site / "docs/reference").glob("*.html"))
    # A package may offer what one of its modules defines.
    offered = {name.rpartition(".")[2] for name in re.findall(r'<dt class="sig[^>]*id="([\w.]+)"', text)}
    assert {member.__name__ for family in FAMILIES for member in members(*family)} <= offered


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[text](missing.md)", "missing.md"),
        ("[text](#missing)", "missing"),
        ("```{eval-rst}\n:py:class:`posenet.losses.MissingLoss`\n```", "MissingLoss"),
        ("![text](missing.png)", "missing.png"),
    ],
)
def test_a_link_to_nothing_fails_the_build(tmp_path, text, says):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Title\n\n{text}\n")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode == 1
    assert says in done.stderr
