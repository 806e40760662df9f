"""A browser without scripts at the console of a running control plane, which can follow every link."""

import http.cookiejar
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from http import HTTPStatus

HREF = re.compile(r'href="([^"#]+)"')
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
ROWS_PER_PAGE = 4
#: Seconds for which a page is asked for again that has no room for us just now, and those between two tries.
PATIENCE, PAUSE = 60, 0.5

type Fields = dict[str, list[str]]


class Console:
    """A browser, signed in if it is told as whom; keeps what it was shown: what it asked for, the answer, its headers."""

    def __init__(self, url: str, username: str = "", password: str = "") -> None:
        self.url = url
        self.shown: list[tuple[str, bytes]] = []
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))
        if username:
            assert "Log out" in self.log_in(username, password)

    def log_in(self, username: str, password: str) -> str:
        """The page that the login leads to."""
        return self.post("/admin/login/", {"username": username, "password": password, "next": "/admin/"})

    def get(self, path: str) -> str:
        """A page that is there, if not at once: who is too many is asked to come again, and people do."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._open(path)
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    raise
                error.close()
            time.sleep(PAUSE)

    def post(self, path: str, form: dict[str, str]) -> str:
        """The page that a form leads to, which has to be accepted."""
        token = TOKEN.search(self.get(path))
        assert token
        return self._open(path, {name: [value] for name, value in form.items()} | {"csrfmiddlewaretoken": [token[1]]})

    def fill(self, path: str, form_id: str, **typed: str) -> str:
        """The answer, whatever it is, to the form of a page with what is typed into some of its fields."""
        fields = fields_of(self.get(path), form_id)
        return self.send(path, fields | {name: [value] for name, value in typed.items()})

    def send(self, path: str, fields: Fields | None = None) -> str:
        """The answer to a request, whatever it is."""
        try:
            return self._open(path, fields)
        except urllib.error.HTTPError as error:
            with error:
                return self._keep(path, error.read(), str(error.headers))

    def crawl(self, *paths: str, rows: int = ROWS_PER_PAGE, is_wide: bool = False) -> Iterator[tuple[str, str]]:
        """These pages and those that links lead to, of each page of a row the first few rows': path and HTML.

        With `is_wide` the pages that differ in their query only are others, too, as far as it is of one parameter: lists
        link to every combination of their filters.
        """
        waiting, seen = deque(paths), set(paths)
        counts = Counter(map(kind_of, paths))
        while waiting:
            path = waiting.popleft()
            try:
                page = self.get(path)
            except urllib.error.HTTPError as error:
                # Such as "add" for what nobody adds; anything else ends the crawl.
                if error.code not in {403, 404}:
                    raise
                with error:
                    page = self._keep(path, error.read(), str(error.headers))
            yield path, page
            for link in map(unescape, HREF.findall(page)):
                found = urllib.parse.urljoin(path, link)
                found = found if is_wide and "&" not in found else found.partition("?")[0]
                if not found.startswith("/admin/") or "logout" in found or found in seen:
                    continue
                counts[kind := kind_of(found)] += 1
                if counts[kind] <= rows:
                    seen.add(found)
                    waiting.append(found)

    def _open(self, path: str, fields: Fields | None = None) -> str:
        data = urllib.parse.urlencode(fields, doseq=True).encode() if fields is not None else None
        with self.opener.open(f"{self.url}{path}", data, timeout=60) as response:
            return self._keep(path, response.read(), str(response.headers))

    def _keep(self, path: str, content: bytes, headers: str) -> str:
        self.shown.append((path, headers.encode() + content))
        return content.decode(errors="replace")


def kind_of(path: str) -> str:
    """The path of a row's page without the row's id, with the names of what is asked."""
    path, _, query = path.partition("?")
    names = sorted(set(urllib.parse.parse_qs(query, keep_blank_values=True)))
    return re.sub(r"^(/admin/\w+/\w+/)[^/]+/(?=\w)", r"\1*/", path) + ("?" + "&".join(names) if names else "")


def fields_of(page: str, form_id: str) -> Fields:
    """What the form of this id sends if nothing in it is changed."""
    reader = _FormReader(form_id)
    reader.feed(page)
    assert reader.fields, f"There is no form {form_id}."
    return reader.fields


class _FormReader(HTMLParser):
    def __init__(self, form_id: str) -> None:
        super().__init__()
        self.fields: Fields = {}
        self._form_id = form_id
        self._is_within = False
        self._select = self._textarea = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        name = found.get("name") or ""
        if tag == "form":
            self._is_within = found.get("id") == self._form_id
        if not self._is_within:
            return
        is_pressed = found.get("type") in {"checkbox", "radio"} and "checked" not in found
        if tag == "input" and name and not is_pressed and found.get("type") not in {"submit", "file", "button"}:
            self.fields.setdefault(name, []).append(found.get("value") or ("on" if "checked" in found else ""))
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and "selected" in found:
            self.fields.setdefault(self._select, []).append(found.get("value") or "")
        elif tag == "textarea":
            self._textarea = name

    def handle_data(self, data: str) -> None:
        if self._is_within and self._textarea:
            self.fields.setdefault(self._textarea, []).append(data.removeprefix("\n"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_within = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""
