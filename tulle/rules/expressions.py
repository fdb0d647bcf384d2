"""Whether a proxy will take a regular expression, told without one.

Proxies use Rust's `regex`, which has neither look-around nor back-references and is stricter about braces. What it has
and Python has not is replaced by something of the same shape; then Python's own parser finds what is left.
"""

import re
import warnings

LOOKING = re.compile(r"\(\?(=|!|<=|<!|>|\(|P=)")
FLAGS = re.compile(r"\(\?[imsUuxR]*(-[imsUuxR]+)?(?P<end>[:)])")
BRACE = re.compile(r"\{(?![0-9]+(,[0-9]*)?\})")
ONLY_THERE = (
    (re.compile(r"\\[pP](\{[^{}]*\}|[A-Za-z])"), r"\\w"),
    (re.compile(r"\\[xuU]\{[0-9A-Fa-f]+\}"), "x"),
    (re.compile(r"\\z"), ""),
    (re.compile(r"\(\?<(?![=!])"), "(?P<"),
)


def regex_mistake(text: str) -> str | None:
    """Return what is wrong with an expression."""
    plain = re.sub(r"\\\\", "x", text)
    bare = re.sub(r"\[\^?\]?(\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]", "x", plain)
    if re.search(r"\\[1-9]", bare):
        return "back-references are not supported"
    if LOOKING.search(re.sub(r"\\.", "x", bare)):
        return "look-around is not supported"
    for there, here in ONLY_THERE:
        plain = there.sub(here, plain)
        bare = there.sub(here, bare)
    if BRACE.search(re.sub(r"\\.", "x", bare)):
        return "a '{' that is no repetition has to be written as '\\{'"
    plain = FLAGS.sub(lambda match: "(?:" if match["end"] == ":" else "", plain)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(plain)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None
