"""Exports correctors to files that run without PoseTune: torch.export and ONNX."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from data_pipeline.files.atomic import atomic_file
from data_pipeline.skeleton import Skeleton
from data_pipeline.user_error import UserError, first_line

SUFFIXES = (".pt2", ".onnx")


def check_suffix(path: Path) -> None:
    """Raises a `UserError` if the extension of `path` is not one of `SUFFIXES`."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end in one of {', '.join(SUFFIXES)}, which determines the export format")


def export_corrector(corrector: torch.nn.Module, skeleton: Skeleton, path: Path, n_subsets: int | None = None) -> None:
    """Writes a corrector to a file. Its input and output are poses (N, J, 3) in mm, for any N.

    Args:
        corrector: The corrector, in evaluation mode, on the CPU.
        skeleton: The skeleton of its poses.
        path: A path that ends in `.pt2` (`torch.export.load(path).module()` runs it) or in `.onnx` (input `poses_mm`,
            output `corrected_mm`). After an error the file is unchanged.
        n_subsets: S, if the corrector fuses subsets; then its input is (N, S, J, 3). None for other correctors.

    Raises:
        UserError: If the path has another extension, if the model cannot be exported, if ONNX is not installed, or if
            the file cannot be written.
    """
    check_suffix(path)
    # Hands in front of the camera: with zeros, a model with branches might take one that it never takes in practice.
    subsets = () if n_subsets is None else (n_subsets,)
    example = torch.randn(4, *subsets, skeleton.n_joints, 3, generator=torch.Generator().manual_seed(0)) * 50
    example[..., 2] += 600
    samples = torch.export.Dim("samples", min=1)
    try:
        with torch.no_grad(), _silent():
            corrector(example)  # so that no cache of its own keeps a tensor of the exporter
            program = torch.export.export(corrector, (example,), dynamic_shapes=({0: samples},))
    except Exception as error:  # there is no common error class for models that cannot be exported
        reason = first_line(error)
        raise UserError(f"the model cannot be exported by torch.export: {reason}") from error
    content = _pt2(program) if path.suffix == ".pt2" else _onnx(program)
    with atomic_file(path) as file:
        file.write(content)


def _pt2(program: torch.export.ExportedProgram) -> bytes:
    # Through memory: if the disk is full, torch terminates the process.
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: torch.export.ExportedProgram) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX is not installed ({error}); run pip install 'posetune[onnx]'") from error
    try:
        with _silent():
            onnx_program = torch.onnx.export(
                program, (), input_names=["poses_mm"], output_names=["corrected_mm"], verbose=False
            )
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"the model cannot be exported to ONNX: {reason}") from error
    assert onnx_program is not None
    content: bytes = onnx_program.model_proto.SerializeToString()
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Suppresses the exporters' deprecation warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
