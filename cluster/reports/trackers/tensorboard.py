"""An experiment as files of TensorBoard: a run for each trial, and the options for its HParams tab.

FOLDER/
    events.out.tfevents.0                  the options that vary, and the numbers that compare the trials
    KEY/REPETITION/events.out.tfevents.0   a trial: numbers over batches, final numbers, settings and final status

The repetitions of a combination are one session group of the HParams tab, which shows their mean. TensorBoard stores
numbers in single precision. It has no status for a trial that a race dropped; the text of the trial says so. To view
the files, run `tensorboard --logdir FOLDER`.

TensorBoard's own library writes the files, without TensorFlow, at about fifty trials per second. This module needs it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from cluster.reports.trackers.runs import ExperimentRuns, Option, Point, TrialRun, as_text, missing_library, new_export
from cluster.results.results import Results

try:
    from google.protobuf.struct_pb2 import ListValue
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
    from tensorboard.plugins.hparams import metadata as hparams
    from tensorboard.plugins.text import metadata as text
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ImportError as error:
    raise missing_library("tensorboard") from error

_FILE_NAME = "events.out.tfevents.0"

_STATUS = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE, "diverged": api_pb2.STATUS_FAILURE}
"""The status in TensorBoard; other statuses are unknown to it."""


def export_tensorboard(results: Results, to: Path) -> None:
    """Writes an experiment's trials as files of TensorBoard. See `new_export`."""
    with new_export(results, to) as (experiment, partial):
        columns = {path: _Column.of(values) for path, values in experiment.options.items()}
        _write(partial, 0.0, [(0, _overview(experiment, columns))])
        for run in experiment.runs():
            final = Point(run.final.step, {f"final/{name}": value for name, value in run.final.values.items()})
            numbers = ((point.step, _scalars(point.values)) for point in (*run.points, final))
            _write(partial / run.trial_id, run.time, chain([(0, _about(run, columns))], numbers))


def _write(folder: Path, time: float, summaries: Iterable[tuple[int, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _FILE_NAME).open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries:
            writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())


def _scalars(values: Mapping[str, float]) -> Any:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


class _Column(NamedTuple):
    """A column of the HParams tab; its values have one type, and values of several types are shown as text."""

    kind: Any
    value_of: Callable[[Option], bool | float | str]

    @classmethod
    def of(cls, values: Sequence[Option]) -> "_Column":
        types = {type(value) for value in values}
        if types == {bool}:
            return cls(api_pb2.DATA_TYPE_BOOL, bool)
        if types <= {int, float}:
            return cls(api_pb2.DATA_TYPE_FLOAT64, lambda value: value)  # type: ignore[arg-type, return-value]
        return cls(api_pb2.DATA_TYPE_STRING, str)


def _overview(experiment: ExperimentRuns, columns: Mapping[str, _Column]) -> Any:
    """Returns the summary that tells the HParams tab which options vary and which numbers compare the trials."""
    infos = []
    for path, (kind, value_of) in columns.items():
        info = api_pb2.HParamInfo(name=path, type=kind)
        info.domain_discrete.extend(map(value_of, experiment.options[path]))
        infos.append(info)
    tags = [f"final/{name}" for name in experiment.final_names]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags]
    content = api_pb2.Experiment(name=experiment.name, hparam_infos=infos, metric_infos=metrics)
    return Summary(value=[_hparams(hparams.EXPERIMENT_TAG, experiment=content)])


def _about(run: TrialRun, columns: Mapping[str, _Column]) -> Any:
    """Returns the summary of a trial's options, settings and final status."""
    start = plugin_data_pb2.SessionStartInfo(group_name=run.group, start_time_secs=run.started or 0.0)
    for path, (_, value_of) in columns.items():
        struct = ListValue()
        struct.append(value_of(run.options[path]))
        start.hparams[path].CopyFrom(struct.values[0])
    status = _STATUS.get(run.status, api_pb2.STATUS_UNKNOWN)
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.ended or 0.0)
    return Summary(
        value=[
            _hparams(hparams.SESSION_START_INFO_TAG, session_start_info=start),
            _hparams(hparams.SESSION_END_INFO_TAG, session_end_info=end),
            _text("trial", run.facts),
            _text("settings", run.settings),
        ]
    )


def _hparams(tag: str, **content: Any) -> Any:
    metadata = hparams.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)


def _text(tag: str, facts: Mapping[str, Any]) -> Any:
    # TensorBoard renders Markdown: four leading spaces keep a text, such as an error, as it is.
    lines = [f"    {line}" for name, value in facts.items() for line in f"{name}: {as_text(value)}".splitlines()]
    tensor = make_tensor_proto("\n".join(lines).encode())
    return Summary.Value(tag=tag, metadata=text.create_summary_metadata(tag, ""), tensor=tensor)
