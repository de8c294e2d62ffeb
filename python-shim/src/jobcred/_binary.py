"""Where the agent's program is: ``jobcred``, which comes with this package on Linux."""

from __future__ import annotations

import os
import sys

from ._errors import UnavailableError, no_agent_on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "jobcred"


def find() -> str:
    """The path of the program ``jobcred``: the one that was installed with this package, else the first on PATH.

    Raises :class:`~jobcred.UnavailableError` where there is none.
    """
    if sys.platform != "linux":
        raise no_agent_on(sys.platform)
    looked = []
    for directory in _places():
        path = os.path.join(directory, NAME)
        if _is_program(path):
            return path
        looked.append(directory)
    raise UnavailableError(
        f"There is no program {NAME} in {', '.join(dict.fromkeys(looked))}.",
        hint="This package was installed without it, as it is from source. "
        "Install a wheel for this platform, or put the program on PATH: see docs/install.md.",
    )


def _places() -> Iterator[str]:
    """Directories, first to last; lazily, because most are found in the first."""
    # Imported here, because it takes longer than the rest of the package and only those who start an agent need it.
    import sysconfig

    yield sysconfig.get_path("scripts")
    # `pip install --user`
    user_scheme = f"{os.name}_user"
    if user_scheme in sysconfig.get_scheme_names():
        yield sysconfig.get_path("scripts", user_scheme)
    # `pip install --target DIR` and `--prefix DIR` put it beside the package, or where their libraries are.
    package = os.path.dirname(os.path.abspath(__file__))
    yield os.path.join(os.path.dirname(package), "bin")
    yield os.path.normpath(os.path.join(package, *[os.pardir] * 4, "bin"))
    for directory in os.get_exec_path():
        # An empty entry means the current directory, from which nothing is started by accident.
        if os.path.isabs(directory):
            yield directory


def _is_program(path: str) -> bool:
    # A folder may have the name as well: this package's own.
    return os.path.isfile(path) and os.access(path, os.X_OK)
