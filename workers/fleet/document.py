"""A fleet's document: reads its YAML into entries that know their lines; touches no database."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from environments.encryption import Secret
from environments.endpoints.hosts import UnusableError
from environments.endpoints.rules import check_secret
from environments.models.connections import Connection
from environments.regular_files import MAX_SECRET_BYTES, UnreadableFileError, read_regular
from workers.fleet.errors import FleetError, Problem
from workers.fleet.kinds import ORGANIZATION, Kind, not_yet
from workers.fleet.values import UnreadableError, Value, is_null, is_storable, is_text, text_of, uuid_of, value_of

MAX_BYTES = 5_000_000
#: The form is ten levels deep; more is a mistake or an attack on the parser's stack.
MAX_DEPTH = 16

#: libyaml where the wheel has it: ten times as fast, which counts for thousands of workers.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: What a message may repeat: a field's or variable's name as they are usually spelled, which no secret looks like.
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}")
VARIABLE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: What a secret is read from, by the word that names it.
NAMED = {"env": "environment variable", "file": "file"}
SECRET_FORM = "write {env: NAME} or {file: PATH}; a secret itself does not belong into this file"  # noqa: S105


@dataclass
class Entry:
    """One object that the document names, with the fields that it gives and the line of each."""

    kind: Kind
    path: str
    line: int
    values: dict[str, Value] = field(default_factory=dict)
    #: Names of connections, None to point to none.
    pointers: dict[str, str | None] = field(default_factory=dict)
    api_key: Secret | None = None
    children: dict[str, list["Entry"]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells the object from its siblings."""
        return str(self.values[self.kind.key])

    def problem(self, message: str, name: str = "") -> Problem:
        """A problem with one field, whether the document gives it or not, or with the whole object."""
        path = f"{self.path}.{name}" if name else self.path
        return Problem(message, self.lines.get(name, self.line), path)

    def __iter__(self) -> Iterator["Entry"]:
        """Itself and all entries below."""
        yield self
        for entries in self.children.values():
            for entry in entries:
                yield from entry


@dataclass(frozen=True)
class Document:
    """The organizations of one file."""

    source: str
    organizations: list[Entry]

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, an object before what lies in it."""
        for organization in self.organizations:
            yield from organization


def read_document(text: str, *, source: str, directory: Path, environ: Mapping[str, str]) -> Document:
    """The document with its secrets read from the environment and from files, whose paths start at the directory.

    FleetError names every problem at once, as far as one does not hide another.
    """
    node = _compose(text, source)
    reader = _Reader(directory, environ)
    organizations = reader.document(node)
    reader.refuse_repetitions(organizations)
    if reader.problems:
        raise FleetError(source, reader.problems)
    return Document(source, organizations)


def _compose(text: str, source: str) -> yaml.Node:
    def refuse(message: str, line: int | None = None) -> NoReturn:
        raise FleetError(source, [Problem(message, line)])

    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        refuse(f"has more than {MAX_BYTES:,} bytes: apply the organizations in several files")
    if not is_storable(text):
        refuse("is not a text in UTF-8, or has NUL characters")
    try:
        _refuse_abuse(text, refuse)
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        refuse(
            f"is not valid YAML: {_without_content(error)}", error.problem_mark.line + 1 if error.problem_mark else None
        )
    except yaml.YAMLError:
        refuse("is not valid YAML: it has characters that YAML does not allow")
    if node is None:
        refuse("is empty: it begins with organizations:")
    return node


def _without_content(error: yaml.MarkedYAMLError) -> str:
    """The parser's words without what it quotes from the file, which may be part of a secret."""
    return re.split(r",? (?:but )?(?:found )?['\"](?!<)", error.problem or "it cannot be read")[0]


def _refuse_abuse(text: str, refuse: Callable[[str, int], NoReturn]) -> None:
    """Refuses what makes a small file grow without bounds, or reads differently from how it looks."""
    depth = documents = 0
    event: Any  # the stubs know nothing of anchors, tags and marks
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            refuse("has several documents: keep one", line)
        if depth > MAX_DEPTH:
            refuse("is nested too deeply", line)
        if getattr(event, "anchor", None) is not None:
            refuse("anchors (&) and aliases (*) are not supported: write the value out, or put it in quotes", line)
        if getattr(event, "tag", None) is not None:
            refuse("tags (!) are not supported: leave it out, or put the value in quotes", line)


class _Reader:
    """Walks the nodes, collecting entries and problems."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.environ = environ
        self.problems: list[Problem] = []

    def document(self, node: yaml.Node) -> list[Entry]:
        """The organizations; the document has nothing else."""
        members = self._members(node, "")
        for name, (key, _) in members.items():
            if name != "organizations":
                self._report(key, _path("", name), "unknown field; the document begins with organizations:")
        if "organizations" not in members:
            self._report(node, "", "organizations: is missing")
            return []
        return self._entries(members["organizations"][1], ORGANIZATION, "organizations")

    def refuse_repetitions(self, organizations: list[Entry]) -> None:
        """Two entries must not name the same object: which of them holds would be chance."""
        self._refuse_repeated_keys(organizations)
        for organization in organizations:
            for entry in organization:
                for siblings in entry.children.values():
                    self._refuse_repeated_keys(siblings)
        workers = [entry for organization in organizations for entry in organization if entry.kind.takes_id]
        self._refuse_repeated([worker for worker in workers if "id" in worker.values], "id")

    def _refuse_repeated_keys(self, siblings: list[Entry]) -> None:
        if siblings:
            self._refuse_repeated(siblings, siblings[0].kind.key)

    def _refuse_repeated(self, entries: list[Entry], name: str) -> None:
        first: dict[Value, Entry] = {}
        for entry in entries:
            if entry.values.get(name) is None:
                continue
            other = first.setdefault(entry.values[name], entry)
            if other is not entry:
                self.problems.append(entry.problem(f"is the same as in line {other.lines[name]}", name))

    def _entries(self, node: yaml.Node, kind: Kind, path: str) -> list[Entry]:
        if not isinstance(node, yaml.SequenceNode):
            self._report(node, path, "expected a list, each item with a - in front")
            return []
        return [self._entry(item, kind, f"{path}[{index}]") for index, item in enumerate(node.value)]

    def _entry(self, node: yaml.Node, kind: Kind, path: str) -> Entry:
        entry = Entry(kind, path, _line(node))
        members = self._members(node, path)
        for name, (key, value) in members.items():
            entry.lines[name] = _line(key)
            try:
                self._read_member(entry, name, value)
            except UnreadableError as error:
                self._report(key, _path(path, name), str(error))
        if isinstance(node, yaml.MappingNode) and kind.key not in members:
            self.problems.append(entry.problem("is required", kind.key))
        return entry

    def _read_member(self, entry: Entry, name: str, node: yaml.Node) -> None:
        kind = entry.kind
        if name in kind.children:
            entry.children[name] = self._entries(node, kind.children[name], f"{entry.path}.{name}")
        elif name in kind.pointers:
            entry.pointers[name] = None if is_null(node) else text_of(node)
        elif name == "api_key" and kind.has_api_key:
            entry.api_key = self._secret(node)
        elif name == "id" and kind.takes_id:
            entry.values[name] = uuid_of(node)
        elif name in kind.fields:
            entry.values[name] = value_of(node, kind.fields[name])
        else:
            known = [*kind.fields, *kind.pointers, *["api_key"] * kind.has_api_key, *["id"] * kind.takes_id]
            is_connection = issubclass(kind.model, Connection)
            msg = f"unknown field; here are known: {', '.join([*known, *kind.children])}"
            msg = (not_yet(name) if is_connection else "") or msg
            raise UnreadableError(msg)

    def _members(self, node: yaml.Node, path: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The members of a mapping by name, each with the nodes of key and value."""
        if not isinstance(node, yaml.MappingNode):
            self._report(node, path, "expected fields, each as name: value")
            return {}
        members: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not is_text(key) or not is_storable(key.value):
                self._report(key, path, "the name of a field is not a text")
            elif key.value in members:
                first = _line(members[key.value][0])
                self._report(key, _path(path, key.value), f"is given twice, first in line {first}")
            else:
                members[key.value] = (key, value)
        return members

    def _secret(self, node: yaml.Node) -> Secret:
        """The secret that the node names; no message repeats what stands there, which may be the secret itself."""
        if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
            raise UnreadableError(SECRET_FORM)
        key, value = node.value[0]
        readers = {"env": self._secret_from_environment, "file": self._secret_from_file}
        if not is_text(key) or key.value not in readers or not is_text(value) or not value.value:
            raise UnreadableError(SECRET_FORM)
        content = readers[key.value](text_of(value))
        if len(content) > MAX_SECRET_BYTES:
            msg = f"this {NAMED[key.value]} has more than {MAX_SECRET_BYTES:,} bytes, so it is no secret's"
            raise UnreadableError(msg)
        text = content.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
        if not text or not is_storable(text):
            msg = "the secret there is empty or not a text in UTF-8 without NUL characters"
            raise UnreadableError(msg)
        try:
            check_secret(text)
        except UnusableError as error:
            raise UnreadableError(str(error)) from None
        return Secret(text)

    def _secret_from_environment(self, name: str) -> bytes:
        if name not in self.environ:
            msg = f"the environment variable {name if VARIABLE_NAME.fullmatch(name) else 'named here'} is not set"
            raise UnreadableError(msg)
        return self.environ[name].encode(errors="surrogatepass")

    def _secret_from_file(self, name: str) -> bytes:
        try:
            return read_regular(self.directory / name)
        except UnreadableFileError as error:
            msg = f"this file cannot be read ({error}); a relative path starts at {self.directory.resolve()}"
            raise UnreadableError(msg) from None

    def _report(self, node: yaml.Node, path: str, message: str) -> None:
        self.problems.append(Problem(message, _line(node), path))


def _path(path: str, name: str) -> str:
    return ".".join(part for part in (path, name if FIELD_NAME.fullmatch(name) else "") if part)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
