"""fovea: a database in place of a long context, for language models.

    import fovea

    with fovea.Memory.open("notes", model="smollm2") as memory:
        memory.ingest("my-documents/")
        answer = memory.ask("Who left the key in the attic?")
        for piece in answer:
            print(piece, end="", flush=True)
        for source in answer.sources:
            print(source.source, source.start, source.end)

A Memory may be used by any number of threads; calls that take time let the others run, and Ctrl-C
ends them. Errors are fovea.Error and its subclasses.
"""
from __future__ import annotations

import atexit as _atexit
import typing as _typing

from . import _fovea
from ._fovea import (
    Aborted,
    Answer,
    AnswerStream,
    Audit,
    Cancelled,
    DataLoss,
    Document,
    Error,
    FailedPrecondition,
    Finding,
    IngestSummary,
    IngestWarning,
    IngestedDocument,
    Internal,
    InvalidArgument,
    Memory,
    NotFound,
    OutOfRange,
    Passage,
    PermissionDenied,
    Progress,
    RebuildResult,
    ResourceExhausted,
    SegmentStats,
    SkippedFiles,
    Source,
    Stats,
    Unavailable,
    Unimplemented,
    VerifyReport,
    Window,
    pull_model,
    verify,
)
from ._fovea import version as __version__

if _typing.TYPE_CHECKING:
    import numpy as _np
    import numpy.typing as _npt

__all__ = [
    "Aborted", "Answer", "AnswerStream", "Audit", "Cancelled", "DataLoss", "Document", "Error",
    "FailedPrecondition", "Finding", "IngestSummary", "IngestWarning", "IngestedDocument",
    "Internal", "InvalidArgument", "Memory", "NotFound", "OutOfRange", "Passage",
    "PermissionDenied", "Progress", "RebuildResult", "ResourceExhausted", "SegmentStats",
    "SkippedFiles", "Source", "Stats", "Unavailable", "Unimplemented", "VerifyReport", "Window",
    "__version__", "pull_model", "to_float32", "verify",
]


def to_float32(entries: _npt.NDArray[_typing.Any]) -> _npt.NDArray[_np.float32]:
    """Keys or values as float32, exactly: a copy of the same shape.

    NumPy has no bfloat16, so that Memory.keys and Memory.values give its 16 bits as uint16: they are
    the upper half of the float32. Entries that are float32 already are returned as they are.
    """
    import numpy

    if entries.dtype == numpy.float32:
        return entries
    if entries.dtype != numpy.uint16:
        raise InvalidArgument(f"entries of type {entries.dtype}: want uint16 (bfloat16's bits) or "
                              "float32, as Memory.keys and Memory.values give them")
    return (entries.astype(numpy.uint32) << 16).view(numpy.float32)


# Users know the classes by the package's name, in messages too.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name

# What is still open when Python ends is closed while its threads can be.
_atexit.register(_fovea.close_all)
