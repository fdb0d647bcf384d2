"""Turns manifests into the objects that are run, or into the list of everything that is wrong with them.

The answer is one or the other: objects are meant to be used only when `problems` is empty, because half a
folder is not what anybody wrote. Remarks (warnings and notes) never stop anything. Kinds that are not run here
are named among them and skipped, so that a folder made for a cluster can be tried as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tulle.model.errors import ManifestError
from tulle.model.objects import JsonValue, Position, Problem
from tulle.rules.admission import findings
from tulle.rules.kinds import KINDS, Object
from tulle.rules.outside import outside
from tulle.rules.positions import MAX_BYTES, Node, node_of, place_of, read
from tulle.rules.references import Document, check
from tulle.rules.schema import Fields, Report, did_you_mean, opened, shown

ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What manifests say: mistakes in `problems`, warnings and notes in `remarks`, both in order of place."""

    objects: tuple[Object, ...]
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...]

    def accepted(self) -> tuple[Object, ...]:
        """Return the objects, or raise every mistake at once.

        Raises:
            ManifestError: there is at least one mistake.
        """
        if self.problems:
            raise ManifestError(self.problems)
        return self.objects


def decode_paths(paths: Iterable[Path], *, whole: bool = True) -> Decoded:
    """Decode files, and the manifests that lie directly in folders, as `kubectl apply -f` takes them.

    `whole` says that there is nothing else, so that every name has to be the name of something here.
    """
    texts: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for path in paths:
        for file in manifests_in(path, problems):
            text = text_of(file, problems)
            if text is not None:
                texts.append((str(file), text))
    return decode(texts, problems, whole=whole)


def manifests_in(path: Path, problems: list[Problem]) -> list[Path]:
    """Return the files that a path stands for."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS and file.is_file())
    if not files:
        problems.append(Problem(Position(str(path), 1), "", "no file here ends in .yaml, .yml or .json"))
    return files


def text_of(file: Path, problems: list[Problem]) -> str | None:
    """Read a file, as far as it may be worth reading."""
    try:
        with file.open("rb") as opened_file:
            content = opened_file.read(MAX_BYTES + 1)
        return content.decode("utf-8-sig")
    except OSError as error:
        problems.append(Problem(Position(str(file), 1), "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(Position(str(file), line), "", "not text in UTF-8"))
    return None


def decode(
    texts: Iterable[tuple[str, str]], problems: Iterable[Problem] = (), *, whole: bool = True
) -> Decoded:
    """Decode texts, each with the name of its file; `problems` are those of reading the files."""
    found = list(problems)
    documents: list[Document] = []
    lost = len(found)
    for file, text in texts:
        nodes, unreadable = read(file, text)
        found.extend(unreadable)
        lost += len(unreadable)
        for node in nodes:
            items = documents_of(node, found)
            documents.extend(document for document in items if document is not None)
            lost += items.count(None)
    if not lost:
        # With an object lost, every name that leads to it would be called a mistake too.
        found.extend(check(documents, whole=whole))
        found.extend(outside(documents))
    found.sort(key=lambda problem: problem.position)
    return Decoded(
        objects=tuple(document.object for document in documents),
        problems=tuple(problem for problem in found if problem.severity == "error"),
        remarks=tuple(problem for problem in found if problem.severity != "error"),
    )


def decode_value(value: JsonValue, position: Position) -> Object:
    """Decode one object that was accepted before and comes without its text.

    Raises:
        ManifestError: it has a mistake all the same.
    """
    problems: list[Problem] = []
    documents = documents_of(node_of(value, position), problems)
    mistakes = tuple(problem for problem in problems if problem.severity == "error")
    if mistakes or len(documents) != 1 or documents[0] is None:
        raise ManifestError(mistakes or tuple(problems))
    return documents[0].object


def documents_of(node: Node, problems: list[Problem]) -> list[Document | None]:
    """Decode one document; a List is many. None stands for an object that cannot even be named."""
    report = Report()
    fields = Fields(node, "", report)
    kind, version = fields.need_text("kind"), fields.need_text("apiVersion")
    items = fields.take("items")
    if kind.endswith("List") and items is not None and isinstance(items.value, list):
        return [document for item in items.value for document in documents_of(item, problems)]
    document = None if report.problems else document_of(fields, kind, version)
    problems.extend(report.problems)
    if document is not None:
        problems.extend(admitted(document, report.problems))
    lost = document is None and any(problem.severity == "error" for problem in report.problems)
    return [document] if document is not None or lost else []


def admitted(document: Document, problems: list[Problem]) -> Iterator[Problem]:
    """Yield what the rules of admission say, except about fields that could not be read."""
    unread = [problem.field for problem in problems if problem.severity == "error"]
    for finding in findings(document.object):
        if not any(finding.path.startswith(path) or path.startswith(finding.path) for path in unread):
            yield Problem(place_of(document.node, finding.path), finding.path, finding.text, finding.severity)


def document_of(fields: Fields, name: str, version: str) -> Document | None:
    """Decode an object of a known kind."""
    kind = KINDS.get(name)
    if kind is None:
        hint = did_you_mean(name, KINDS)
        fields.wrong("kind", f"{name} is not run here and was skipped{hint}", "warning")
        return None
    if version not in kind.api_versions:
        expected = " or ".join(kind.api_versions)
        fields.wrong("apiVersion", f"expected {expected} for {name}, found {shown(version)}")
        return None
    decoded = opened(fields, kind.decode)
    return Document(decoded, tuple(fields.report.references), fields.node) if decoded.meta.name else None
