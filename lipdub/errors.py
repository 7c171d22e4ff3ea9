"""Errors that a user can cause or fix, each class with its exit code.

LipdubError
├── InputError      3   unreadable or invalid video or audio; names the missing stream or the time of the damage
├── NoFaceError     4   no usable face in the range; says which frames were looked at
├── OutputError     5   output exists, equals the input, or its folder cannot be written
├── SetupError      6   device or encoder that was asked for is absent
├── WeightsError    7   missing, offline, hash mismatch, dimensions do not fit; names the command that mends it
├── ResourceError   8   disk full, out of memory after the batch was halved to one
├── TrainingError   8   non-finite loss several steps in a row: step and the loss's name
├── BatchError      9   some items of a batch failed
└── StrictError    10   --strict: finished, but with warnings

Bugs of ours are ordinary Python errors (exit 1); usage errors are Typer's (exit 2).
"""


class LipdubError(Exception):
    """Base of all errors that the command line reports without a traceback.

    Args:
        what: one sentence that names the path, frame, time or key.
        remedy: one sentence that says what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["LipdubError"], tuple[str, str]]:
        """As it was made, so that it gets from one process to another."""
        return type(self), (self.what, self.remedy)


class InputError(LipdubError):
    """A video or audio file that cannot be used."""

    exit_code = 3


class NoFaceError(LipdubError):
    """No usable face in the range that was asked for."""

    exit_code = 4


class OutputError(LipdubError):
    """The output may not or cannot be written."""

    exit_code = 5


class SetupError(LipdubError):
    """This machine lacks a device, an encoder or an optional package."""

    exit_code = 6


class WeightsError(LipdubError):
    """Weights are missing, damaged, or do not fit the model."""

    exit_code = 7


class ResourceError(LipdubError):
    """Disk or memory ran out."""

    exit_code = 8


class TrainingError(LipdubError):
    """A training run that cannot go on."""

    exit_code = 8


class BatchError(LipdubError):
    """Some items of a batch failed; the others are done."""

    exit_code = 9


class StrictError(LipdubError):
    """Finished, but with warnings, and --strict was given."""

    exit_code = 10


_FULL = ("out of memory", "can't allocate memory")  # what PyTorch says of CUDA, MPS and the CPU


def out_of_memory(error: BaseException) -> bool:
    """Whether Python or PyTorch says that memory ran out, of this machine or of its accelerator."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(t in str(error) for t in _FULL))
