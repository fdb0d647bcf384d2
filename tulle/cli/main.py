"""`tulle`: from arguments to an exit code.

This is the only place that catches `TulleError`. It becomes a sentence on stderr and an exit code:

    0   done
    1   the mesh said no, or a check failed
    2   an argument or a manifest is wrong
    3   this machine lacks something
    4   no mesh of this name runs
    70  a mistake of ours
    130 interrupted

Of the modules in `commands` only the one is loaded that was called, so that `tulle --help` waits for none.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from tulle import __version__
from tulle.model.errors import BugError, HostError, ManifestError, NotRunning, SettingError, TulleError

COMMANDS = {
    "up": "Run the pods of manifests on this machine, meshed.",
    "down": "Stop a mesh and leave nothing behind.",
    "demo": "Run the vaccine finder, an application of six services.",
    "check": "Say whether manifests can be applied, or without any whether a mesh can run here.",
    "why": "Say what becomes of a request, and why.",
    "allow": "Print the fewest manifests that allow a request.",
    "get": "Show policies, routes and Services with what became of them.",
    "ps": "Show the pods with live numbers.",
    "tap": "Watch requests as the proxies of a workload see them.",
    "logs": "Show what a pod says.",
    "exec": "Run a command inside a pod.",
    "restart": "Replace the pods of a workload without losing a request.",
    "scale": "Change the number of pods of a workload.",
}
GROUPS = {
    "identity": (
        "Look after certificates.",
        {
            "show": "Show trust anchor and issuer, and how far a rotation has come.",
            "rotate": "Replace the issuer, or the trust anchor too.",
            "recover": "Bring back a mesh in which everything has expired.",
        },
    ),
    "diagnostics": (
        "Show what the control plane tells the proxies.",
        {
            "endpoints": "Show the addresses that a client gets for a service.",
            "profile": "Show the profile that a client gets for an address.",
            "policy": "Show the policy of a pod's port, or that of a client to a service.",
            "proxy-metrics": "Show the metrics of a pod's proxy.",
        },
    ),
}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        application(words)(words, prog_name="tulle")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except TulleError as error:
        sys.stderr.write(f"{sentence(error)}\n")
        return exit_code(error)
    except BrokenPipeError:
        return 1
    return 0


def sentence(error: TulleError) -> str:
    """Return what an error says to a person."""
    if isinstance(error, ManifestError):
        count = len(error.problems)
        return f"{error}\n{count} mistake{'s' if count > 1 else ''}; nothing was changed"
    return f"error: {error}"


def exit_code(error: TulleError) -> int:
    """Return the exit code of an error's kind."""
    match error:
        case SettingError():
            return 2
        case HostError():
            return 3
        case NotRunning():
            return 4
        case BugError():
            return 70
        case _:
            return 1


def application(words: list[str]) -> typer.Typer:
    """Return every command, of which only the called one can do more than be listed."""
    called = [word for word in words if not word.startswith("-")]
    app = new("A service mesh for Kubernetes, and for one Linux machine without it.")
    app.callback()(options)
    for name, text in COMMANDS.items():
        function = loaded(name, "run") if called[:1] == [name] else listed
        register(app, name, text, function)
    for group, (text, commands) in GROUPS.items():
        inner = new(text)
        for name, inner_text in commands.items():
            chosen = called[:2] == [group, name]
            register(inner, name, inner_text, loaded(group, name.replace("-", "_")) if chosen else listed)
        app.add_typer(inner, name=group, help=text)
    return app


def new(text: str) -> typer.Typer:
    """Return an empty group."""
    return typer.Typer(
        help=text,
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
    )


def register(app: typer.Typer, name: str, text: str, function: Callable[..., int]) -> None:
    """Make a function a command whose result is the exit code."""

    @functools.wraps(function)
    def command(*arguments: object, **options: object) -> NoReturn:
        raise typer.Exit(function(*arguments, **options))

    described = inspect.getdoc(function) if function is not listed else None
    app.command(name, help=described or text, short_help=text, context_settings=SETTINGS)(command)


def loaded(module: str, function: str) -> Callable[..., int]:
    """Return the function of a command."""
    found: Callable[..., int] = getattr(importlib.import_module(f"tulle.cli.commands.{module}"), function)
    return found


def listed() -> int:
    """Stand for a command that was not called."""
    raise BugError("a command was called whose module was not loaded")


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        sys.stdout.write(f"tulle {__version__}\n")
        raise typer.Exit


def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of all commands."""


if __name__ == "__main__":
    sys.exit(main())
