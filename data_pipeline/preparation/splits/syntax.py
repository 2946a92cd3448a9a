"""The texts of splits, such as `blocks:500:5:50`."""

import re
from pathlib import Path

from data_pipeline.preparation.splits.groups import ByGroup
from data_pipeline.preparation.splits.in_order import Blocks, LastPercent
from data_pipeline.preparation.splits.listed import ByIndex
from data_pipeline.preparation.splits.split import NoSplit, Split
from data_pipeline.user_error import UserError

SPLIT_SYNTAX = """\
subjects:V:T      subjects T for testing, subjects V for validation, the others for training. T and V are names
                  separated by commas. V may also be a percentage such as 20%: the last 20 percent of the frames of each
                  subject that is not tested
subjects:P%:T:GAP the same without the GAP training frames before them
sequences:...     the same for sequences
clusters:F:...    the same for clusters. The file F has the cluster of each frame, as written by the command
                  `clusters`; without T there is no test set
blocks:M:K:GAP    blocks of M frames; of every K blocks the last is for validation, the middle one for testing. The GAP
                  frames on each side of both are in no part, since they would be too similar; test blocks stay whole
blocks:M:K        the same without a gap: this measures interpolation between neighbouring frames
last:P            the last P percent for validation
last:P:Q          the last Q percent for testing, the P percent before them for validation; P = 0 makes no
                  validation set
last:P:Q:GAP      the same without GAP frames before each of the two
indices:F         frames by number, counted from 0. F is JSON, {"train": [0, 1], "val": [...], "test": [...]}: a
                  part may be missing, and frames that are not listed are dropped; a list of such objects has folds.
                  Or F is text with one number per line: these frames are for validation, the others for training
none              a single dataset"""
"""The possible splits, for a help text."""

_USAGE = (
    "a split is 'subjects:V:T' or 'sequences:V:T' (V for validation, T for testing, by name; V may be a percentage of "
    "the others such as 20%), 'clusters:FILE:V:T' (the same for clusters), 'blocks:M:K:GAP' (blocks of M frames; of "
    "every K blocks the last is for validation, the middle one for testing, without the GAP frames on each side), "
    "'last:P' or 'last:P:Q' (the last Q percent for testing, the P percent before them for validation), 'indices:FILE' "
    "(the frames listed in a file) or 'none', for example 'subjects:20%:2:50' or 'blocks:500:5:50'"
)

_NUMBER = r"\d{1,9}"
_NAMES = r"[^:,%]+(?:,[^:,%]+)*"
_CLUSTERS = rf"{_NUMBER}(?:,{_NUMBER})*"


def parse_split(text: str) -> Split:
    """Parses a split as described by `SPLIT_SYNTAX`. Files are not opened.

    Raises:
        UserError: If `text` is not a split; the message lists the possible splits.
    """
    if text == "none":
        return NoSplit()
    if match := re.fullmatch(rf"blocks:({_NUMBER}):({_NUMBER})(?::({_NUMBER}))?", text, re.ASCII):
        return Blocks(*(int(number) for number in match.groups("0")))
    if match := re.fullmatch(rf"last:({_NUMBER})(?::({_NUMBER})(?::({_NUMBER}))?)?", text, re.ASCII):
        return LastPercent(int(match[1]), None if match[2] is None else int(match[2]), int(match[3] or 0))
    if match := re.fullmatch(rf"(subjects|sequences):({_NUMBER}%|{_NAMES}):({_NAMES})(?::({_NUMBER}))?", text):
        return ByGroup(match[1], _val(match[2]), tuple(match[3].split(",")), int(match[4] or 0))
    clusters = rf"clusters:(.+?):({_NUMBER}%|{_CLUSTERS})(?::({_CLUSTERS})(?::({_NUMBER}))?)?"
    if match := re.fullmatch(clusters, text, re.ASCII):
        # Written as in the file: without leading zeros.
        val, test = (re.sub(r"\b0+(?=\d)", "", group or "") for group in match.group(2, 3))
        return ByGroup(
            "clusters", _val(val), tuple(test.split(",")) if test else (), int(match[4] or 0), Path(match[1])
        )
    if match := re.fullmatch(r"indices:(.+)", text):
        return ByIndex(Path(match[1]))
    raise UserError(f"{text!r} is not a split: {_USAGE}")


def _val(text: str) -> tuple[str, ...] | int:
    return int(text[:-1]) if text.endswith("%") else tuple(text.split(","))
