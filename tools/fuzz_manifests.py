"""The fuzz target of manifest decoding, for `tools/fuzz`: atheris, which is libFuzzer for Python.

Bytes at random seldom make a manifest that is wrong in one place only, so half of the mutations are of lines and
values: what a tired person does to a file.
"""

import random
import sys

import atheris

with atheris.instrument_imports(include=["tulle.rules", "tulle.model"]):
    from tests.rules.test_fuzz_decode import check

VALUES = (
    *(
        "",
        "~",
        "[]",
        "{}",
        "- x",
        "0",
        "-1",
        "1e999",
        "0x",
        "9" * 40,
        "yes",
        "'",
        '"',
        "*a",
        "&a [*a]",
        "<<: *a",
    ),
    *(
        "|",
        ">",
        "? a",
        "!!binary x",
        "!x y",
        "\x00",
        "\u2028",
        "é",
        "a" * 300,
        "${A}",
        "1Gi",
        "25%",
        "---",
        "...",
    ),
)


def check_bytes(data: bytes) -> None:
    """Check one text."""
    check(data.decode(errors="replace"))


def mutate(data: bytes, longest: int, seed: int) -> bytes:
    """Change bytes, or lines and values."""
    source = random.Random(seed)
    if source.random() < 0.5:
        return bytes(atheris.Mutate(data, longest))
    lines = data.decode(errors="replace").split("\n")
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(lines))
        match source.randrange(6):
            case 0:
                lines.insert(at, source.choice(lines))
            case 1 if len(lines) > 1:
                del lines[at]
            case 2:
                lines[at] = " " * source.randrange(3) + lines[at]
            case 3:
                lines[at] = lines[at].removeprefix("  ")
            case 4:
                key, colon, _ = lines[at].partition(":")
                lines[at] = f"{key}{colon} {source.choice(VALUES)}"
            case _:
                _, _, value = source.choice(lines).partition(":")
                lines[at] = lines[at].partition(":")[0] + ":" + value
    return "\n".join(lines).encode(errors="replace")[:longest]


if __name__ == "__main__":
    atheris.Setup(sys.argv, check_bytes, custom_mutator=mutate)
    atheris.Fuzz()
