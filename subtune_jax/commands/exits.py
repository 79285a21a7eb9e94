"""Exit codes, and errors in one line. Imports nothing that an extra brings.

Exit codes: 0 on success; 2 on a usage or input error, with one line on stderr and
no traceback; 1 otherwise. The last line on stdout is the path of the JSON result.
"""

import sys
from collections.abc import Callable
from pathlib import Path


def guard(prog: str, work: Callable[[], Path | None]) -> int:
    """Runs `work`, prints the path that it returns, and maps errors to exit codes."""
    try:
        path = work()
    except FloatingPointError as error:
        print(f"{prog}: {_line(error)}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        if not _ours(error):
            raise
        print(f"{prog}: {_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command resumes", file=sys.stderr)
        return 1
    if path is not None:
        print(path)
    return 0


def _ours(error: BaseException) -> bool:
    """Was it raised by this project or a config, or by the operating system?

    A ValueError from inside jax or NumPy is a defect of ours, and keeps its traceback.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    file = "" if frame is None else frame.tb_frame.f_code.co_filename
    here = str(Path(__file__).parents[1])
    return isinstance(error, OSError) or file.startswith(here) or "config" in file


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
