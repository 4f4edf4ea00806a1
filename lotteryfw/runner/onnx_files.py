"""Networks as ONNX files, for runtimes other than PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lotteryfw.api.errors import LotteryError, UsageError
from lotteryfw.engine import EngineContext
from lotteryfw.runner.context import StudyContext

if TYPE_CHECKING:
    from torch import Tensor

    from lotteryfw.search.cell import Cell

_PACKAGES = ("onnx", "onnxscript")


def onnx_bytes(context: StudyContext, cell: Cell, values: Mapping[str, Tensor]) -> bytes:
    """Return an ONNX file of a cell's network at these values, with a batch of any size.

    Its input is called "inputs" and its output "outputs". Raises UsageError where a package is
    missing, for values that are of another network, and for one that torch.onnx cannot export.
    """
    # first, since building and exporting a large network takes long
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise UsageError(f'ONNX files need {package}: pip install "lotteryfw[onnx]"')
    import torch

    facts = cell.data.facts(context.data_folder)
    engine = EngineContext(context.registry, context.data_folder, "cpu", context.store)
    model = context.describe(cell.model, cell.clock)
    module = engine.network(model, facts, context.describe(cell.objective, cell.clock))
    # not strict: buffers outside the values, such as fixed ones, are as the network is built
    try:
        module.load_state_dict(dict(values), strict=False)
    except RuntimeError as error:
        raise UsageError(
            f"model '{cell.model.use}' does not have the shapes of these weights: {error}"
        ) from None
    module.eval()
    # two examples, as torch takes a size of 1 for a constant
    dtype = torch.int64 if facts.vocabulary else torch.float32
    example = torch.zeros(2, *facts.shape, dtype=dtype)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["inputs"],
                output_names=["outputs"],
                verbose=False,
            )
    except LotteryError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UsageError(
            f"model '{cell.model.use}' cannot be exported as ONNX: {type(error).__name__}: {reason}"
        ) from error
    assert program is not None, "with dynamo=True a program is returned"
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress and deprecations of the exporter off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
