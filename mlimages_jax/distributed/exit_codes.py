# SPDX-License-Identifier: BSD-3-Clause
"""How the program ends after an error: 1 where a person must act, else a launcher may try again.

Launchers start again after every code but 0 and 1, so an error that comes back at every start has
to end with 1. Errors of our own say what to do and are for a person, all of them; of the others
those are left to a restart that a machine, a device or a network may have caused.
"""

import errno
import traceback

PERSON = 1
CRASH = 70  # EX_SOFTWARE of sysexits.h: an error that nobody foresaw; another start may do

_OURS = ("mlimages_jax.", "tfds_builders.")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_STAYS = (  # of the system's errors: the next start would meet the same
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.EXDEV, errno.EMFILE, errno.ENFILE, errno.EPIPE,
    errno.ENOEXEC, errno.EOPNOTSUPP, errno.ENXIO, errno.ENODEV,
)  # fmt: skip
_SAME_AGAIN = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
    NotImplementedError, RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
# How XLA and TensorStore begin what another start would not mend, and what it might.
_SAME_STATUS = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION", "PERMISSION_DENIED")
_PASSING_STATUS = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "INTERNAL")
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OUT_OF_MEMORY", "Unable to allocate")


def for_a_person(error: BaseException, *, workdir: str) -> str | None:
    """The line to end with where a restart would meet the same error; None where it may help.

    What nobody foresaw is printed with its traceback as well.

    Args:
        error: that a task raised.
        workdir: of the task, for errors of a disk that name no file.
    """
    if is_ours(error):
        return f"error: {error}"
    if is_out_of_memory(error):
        return (
            f"error: out of memory: {_first_line(error)}. Give a smaller batch size, or fewer "
            "--config.input.num_threads where it was the host's memory"
        )
    if isinstance(error, OSError):
        return _of_the_system(error, workdir)
    if isinstance(error, ImportError):
        return (
            f"error: {error}: it is not installed. The optional parts are extras of the package, "
            "such as pip install -e '.[gcs]' in the clone for gs://; pyproject.toml lists them"
        )
    if not _comes_back(error):
        return None
    traceback.print_exception(error)
    return (
        f"error: {type(error).__name__}: {_first_line(error)} (see above). Starting again as it is "
        "would not help: please report it"
    )


def is_ours(error: BaseException) -> bool:
    """Whether a class of this package: its text says what to do."""
    return any(f"{kind.__module__}.".startswith(_OURS) for kind in type(error).__mro__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left."""
    if isinstance(error, MemoryError):
        return True
    return _is_of_jax(error) and any(word in str(error) for word in _NO_MEMORY)


def _of_the_system(error: OSError, workdir: str) -> str | None:
    where = error.filename or workdir
    if error.errno in _DISK:
        return (
            f"error: {where}: {error.strerror}. Make room there, or make it writable, and start "
            "the same command again; checkpoints that were written are whole"
        )
    named = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
    if isinstance(error, (*named, PermissionError)) or "Forbidden" in str(error):
        return f"error: {error}"
    if error.errno in _STAYS:
        return f"error: {where}: {error.strerror}"
    return None


def _comes_back(error: BaseException) -> bool:
    text = str(error)
    if _is_of_jax(error):
        return text.startswith(_SAME_STATUS)
    passing = any(word in text for word in _PASSING_STATUS)  # TensorStore raises ValueError too
    return isinstance(error, _SAME_AGAIN) and not passing


def _is_of_jax(error: BaseException) -> bool:
    return any(
        kind.__name__ in ("JaxRuntimeError", "XlaRuntimeError") for kind in type(error).__mro__
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
