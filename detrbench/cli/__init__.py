"""The command line: `detrbench COMMAND`. Each command is a module here: it parses, calls and prints.

Exit codes: 0 ok; 1 findings (a cell failed, a data set has mistakes); 2 usage or configuration; 3 internal error;
4 this machine cannot do it; 5 nothing selected; 6 inconclusive; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

from detrbench.errors import DetrbenchError, EnvironmentLacking, UsageError
from detrbench.words import printable, shown

INTERRUPTED, TERMINATED = 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments  # wherever it stands
    try:
        from detrbench.cli.app import commands

        with _heeding_termination():
            commands([argument for argument in arguments if argument != "--debug"], prog_name="detrbench")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `detrbench list models | head`
        sys.stderr.close()
        return 0
    except DetrbenchError as error:
        _tell(error, debug)
        return error.exit_code
    except OSError as error:
        known = _of_the_system(error)
        _tell(known, debug)
        return known.exit_code
    except MemoryError:
        lacking = EnvironmentLacking("out of memory", hint="choose smaller sizes, or a machine with more memory")
        _tell(lacking, debug)
        return lacking.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        hint = "" if debug else "; run it again with --debug for the traceback"
        print(printable(f"internal error: {type(error).__name__}: {_first_line(error)}{hint}"), file=sys.stderr)
        return DetrbenchError.exit_code
    return 0


class Terminated(KeyboardInterrupt):
    """SIGTERM, or SIGUSR2 as Slurm sends it before the time is up: ends a command as Ctrl-C does, with its own code."""


@contextlib.contextmanager
def _heeding_termination() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM and SIGUSR2 inside the block, unless whoever called takes care of it."""

    def end(number: int, frame: object) -> None:
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    ours = [each for each in (signal.SIGTERM, signal.SIGUSR2) if main and signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def _of_the_system(error: OSError) -> DetrbenchError:
    """What the operating system refuses: a path that cannot be is the user's mistake, anything else this machine's."""
    place = f"{shown(str(error.filename))}: " if error.filename else ""
    message = f"{place}{error.strerror or error}"
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EINVAL):
        return UsageError(message, hint="correct the path")
    return EnvironmentLacking(message, hint="free some disk space, or choose another path")


def _tell(error: DetrbenchError, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(printable(f"{'' if error.exit_code == 1 else 'error: '}{error.message}"), file=sys.stderr)
    if error.hint:
        print(printable(f"hint: {error.hint}"), file=sys.stderr)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
