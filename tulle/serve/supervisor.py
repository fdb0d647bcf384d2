"""How a mesh's supervisor starts: first as an ordinary process, which makes the namespaces and becomes another.

What it is inside of them is in `inside`, which is loaded only there: the first of the two should cost nothing.
"""

import os
import resource
import sys
from collections.abc import Iterator, Sequence

from tulle.local.launch import INSIDE, become_first, enter, settle
from tulle.local.settings import settings
from tulle.model.errors import TulleError


def main(arguments: Sequence[str]) -> int:
    """Run a mesh until it is stopped."""
    code = 0
    try:
        chosen = settings(arguments, os.environ)
        if INSIDE not in arguments:
            enter([sys.executable, "-m", "tulle.serve.supervisor", INSIDE, *arguments])
        become_first()
        process = settle(chosen.name)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        from tulle.serve import inside

        inside.run(chosen, process)
    except* TulleError as errors:
        print(*_leaves(errors), sep="\n", file=sys.stderr)  # noqa: T201 (whoever started us shows it)
        code = 1
    return code


def _leaves(group: BaseExceptionGroup[TulleError]) -> Iterator[TulleError]:
    """Yield the errors of a group, however deep they are."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
