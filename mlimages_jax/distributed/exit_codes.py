# SPDX-License-Identifier: BSD-3-Clause
"""Chooses exit codes after errors: 1 if the user must act, another code if a restart may help.

Launchers restart the program after every exit code but 0 and 1, so an error that would recur at
every start must exit with 1. That includes all errors defined in this package, which tell the user
what to do. Of the other errors, those that a machine, a device or a network may have caused are
left to a restart.
"""

import errno
import os
import traceback

CRASH = 70  # EX_SOFTWARE in sysexits.h: an unexpected error; a restart may help

_OURS = ("mlimages_jax.", "tfds_builders.")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_STAYS = (  # errno values that a restart would meet again
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP,
    errno.ENAMETOOLONG, errno.EINVAL, errno.EXDEV, errno.EMFILE, errno.ENFILE, errno.EPIPE,
    errno.ENOEXEC, errno.EOPNOTSUPP, errno.ENXIO, errno.ENODEV,
)  # fmt: skip
_SAME_AGAIN = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError,
    NotImplementedError, RecursionError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
# Status codes that start the messages of XLA and TensorStore: permanent, and transient.
_SAME_STATUS = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION", "PERMISSION_DENIED")
_PASSING_STATUS = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "INTERNAL")
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "OUT_OF_MEMORY", "Unable to allocate")


def for_a_person(error: BaseException, *, workdir: str) -> str | None:
    """Returns the final message for an error that needs the user; None if a restart may help.

    Also prints the traceback of an unexpected error.

    Args:
        error: The error raised by a task.
        workdir: Workdir of the task, for disk errors that do not name a file.
    """
    if is_ours(error):
        return f"error: {error}"
    # A restart would allocate the same arrays again.
    if is_out_of_memory(error):
        return (
            f"error: out of memory: {_first_line(error)}. Reduce the batch size, or, if the host "
            "ran out of memory, --config.input.num_threads"
        )
    if isinstance(error, OSError):
        return _of_the_system(error, workdir)
    if isinstance(error, ImportError):
        return (
            f"error: {error}: it is not installed. Optional dependencies are extras, such "
            "as pip install -e '.[gcs]' in the clone for gs://; pyproject.toml lists them"
        )
    if not _comes_back(error):
        return None
    traceback.print_exception(error)
    return (
        f"error: {type(error).__name__}: {_first_line(error)} (see above). Running the same "
        "command again would not help; please report this error"
    )


def is_ours(error: BaseException) -> bool:
    """Returns whether an error is defined in this package, so that its message says what to do."""
    # The dot keeps out packages whose names only begin like ours.
    return any(f"{kind.__module__}.".startswith(_OURS) for kind in type(error).__mro__)


def text_of(error: BaseException) -> str:
    """Returns the message of an error, with advice where the system gives none."""
    if isinstance(error, IsADirectoryError) and error.filename:
        return f"{os.fspath(error.filename)}: this is a folder; give a file"
    return str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether a device or the host ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    return _is_of_jax(error) and any(word in str(error) for word in _NO_MEMORY)


def _of_the_system(error: OSError, workdir: str) -> str | None:
    where = error.filename or workdir  # a failed write to an open file has no name
    if error.errno in _DISK:
        return (
            f"error: {where}: {error.strerror}. Free some disk space or make it writable, then run "
            "the same command again; finished checkpoints are intact"
        )
    named = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
    # gcsfs raises a plain OSError "Forbidden", without an errno, for missing permissions.
    if isinstance(error, (*named, PermissionError)) or "Forbidden" in str(error):
        return f"error: {text_of(error)}"
    if error.errno in _STAYS:
        return f"error: {where}: {error.strerror}"
    return None


def _comes_back(error: BaseException) -> bool:
    text = str(error)
    if _is_of_jax(error):
        return text.startswith(_SAME_STATUS)
    passing = any(word in text for word in _PASSING_STATUS)  # TensorStore also raises ValueError
    return isinstance(error, _SAME_AGAIN) and not passing


def _is_of_jax(error: BaseException) -> bool:
    # Compared by name, so that commands without JAX can use this module.
    return any(
        kind.__name__ in ("JaxRuntimeError", "XlaRuntimeError") for kind in type(error).__mro__
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
