"""The errors that leave a module, told apart by what the reader does next.

    TulleError
    ├── SettingError      an argument, a setting or a file of the operator's: change it
    │   └── ManifestError    the mistakes in manifests, all of them, each with its place
    ├── HostError         this machine lacks or forbids something: install it or allow it
    ├── MeshError         the mesh's own answer: it is there already, is not there, or says no
    │   ├── AlreadyRunning
    │   ├── NotRunning
    │   └── NotFound
    ├── PeerError         what the other end sent breaks the contract: look there
    └── BugError          a promise of our own is broken: report it

A text names the thing, the value and the next step. `cli/main.py` alone turns a kind into an exit code.
"""

from tulle.model.objects import Problem


class TulleError(Exception):
    """Anything that Tulle reports in a sentence instead of a traceback."""


class SettingError(TulleError):
    """The operator gave something that cannot be used."""


class ManifestError(SettingError):
    """Manifests have mistakes; nothing of them was taken over."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class HostError(TulleError):
    """This machine lacks something, or does not allow it."""


class MeshError(TulleError):
    """The mesh cannot do what was asked."""


class AlreadyRunning(MeshError):
    """A mesh of this name runs already."""


class NotRunning(MeshError):
    """No mesh of this name runs."""


class NotFound(MeshError):
    """The mesh runs, but what was named is not in it."""


class PeerError(TulleError):
    """The other end sent something that the contract does not allow."""


class BugError(TulleError):
    """Something happened that this program promises cannot happen."""
