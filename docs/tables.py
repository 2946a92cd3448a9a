"""Writes docs/tables.md: what there is to choose from, from docstrings and constants of the code.

    python docs/tables.py

A test compares the file with what this script would write.
"""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.reports.tables.metric_labels import MEASURES
from data_pipeline import augmenters
from data_pipeline.formats.joint_orders import MSRA15, OPENPOSE
from data_pipeline.skeleton import BUILT_IN, HANDS17
from posenet import errors, losses

FILE = Path(__file__).with_suffix(".md")


def text() -> str:
    """Returns the whole page."""
    orders = {"MSRA15": MSRA15.joint_names, "OpenPose, MediaPipe, FreiHAND": OPENPOSE.joint_names}
    orders = {HANDS17.name: HANDS17.joint_names, **orders, **{s.name: s.joint_names for s in BUILT_IN[1:]}}
    n_joints = max(map(len, orders.values()))
    names = [[order[joint] if joint < len(order) else "" for order in orders.values()] for joint in range(n_joints)]
    return f"""\
# Augmenters, losses, errors, metrics and joint orders

<!-- docs/tables.py writes this file from the code. -->

## Augmenters

`augmenters` of the hyperparameters is a list of these, applied one after another.
[Run scripts](../tune_runs/README.md#augmenters) compares them.

{_table(["augmenter", "what it does to input and label"], _classes(augmenters, augmenters.Augmenter))}

## Losses

`loss_function` of the hyperparameters.

{_table(["loss", "what it is"], _classes(losses, losses.Loss))}

A mode is `"absolute"` or `"squared"`, and an error is one of the following.

## Errors

Functions of `posenet.errors` for the losses: `MetricLoss(errors.bone_length_error, "squared")`. N is the number of
samples, J that of joints, B that of bones.

{_table(["error", "what it is"], _errors())}

## Metrics

Tables, reports and learning curves use these names. [Names](../tune_runs/README.md#working-with-results) says what
papers may mean by the same words.

{_table(["metric", "what it is", "unit", "better"], _metrics())}

## Joint orders

The position of each joint, from 0. A dataset has the order of its skeleton: HANDS17, ICVL or NYU. `prepare-data` and
`predict` convert the others to and from HANDS17. W is the wrist; then come the finger (thumb, index, middle, ring,
pinky) and the joint: from the palm outwards MCP, PIP, DIP and TIP.

{_table(["", *orders], ([str(joint), *row] for joint, row in enumerate(names)))}
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _classes(module: ModuleType, base: type) -> Iterable[Sequence[str]]:
    for name, member in vars(module).items():
        if inspect.isclass(member) and issubclass(member, base) and not inspect.isabstract(member):
            arguments = ", ".join(map(_argument, inspect.signature(member).parameters.values()))
            yield f"`{name}({arguments})`", _first_sentence(member)


def _argument(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is parameter.empty:
        return parameter.name
    return f"{parameter.name}={f'errors.{default.__name__}' if inspect.isfunction(default) else repr(default)}"


def _errors() -> Iterable[Sequence[str]]:
    for name, member in vars(errors).items():
        if inspect.isfunction(member) and list(inspect.signature(member).parameters) == ["poses", "labels", "skeleton"]:
            sentence = _first_sentence(member).removeprefix("Returns ")
            yield f"`errors.{name}`", sentence[0].upper() + sentence[1:]


def _metrics() -> Iterable[Sequence[str]]:
    for name, measure in MEASURES.items():
        yield f"`{name}`", measure.title, measure.unit, measure.better.removesuffix(" is better")


def _first_sentence(documented: Any) -> str:
    paragraph = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".") + "."


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
