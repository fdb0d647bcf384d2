"""Reads a service's settings from the environment, once, into a frozen value.

A field `slots_url` is the variable SLOTS_URL; what the environment lacks keeps its default. A value of the
wrong type ends the process before it has opened anything.
"""

import os
import sys
from typing import TypeVar

import msgspec

Settings = TypeVar("Settings")


def read(kind: type[Settings]) -> Settings:
    """Return the settings of this process, or leave with one line that names the variable."""
    variables = {name.lower(): value for name, value in os.environ.items()}
    try:
        return msgspec.convert(variables, kind, strict=False)
    except msgspec.ValidationError as error:
        sys.exit(f"environment (names here in lower case): {error}")
