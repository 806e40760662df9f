"""What the import contracts in pyproject.toml cannot say, because they see other packages only as a whole."""

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.once

PACKAGES = ("controlplane", "workers", "environments")  # each may use those to its right
PRODUCT = sorted(
    [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "migrations" not in path.parts]
    + [ROOT / "manage.py", *(ROOT / "examples").glob("*.py")]
)
#: One tries a credential out: whoever presses Verify has it sent to the server that it is for.
REVEALERS = {
    "environments/encryption.py",
    "environments/connections/verification/credentials.py",
    "workers/api/serializers/workers.py",
    "workers/api_keys/issuing.py",
}
LONGEST_FILE = 400


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported_modules(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{name.name}" for name in node.names}
    return found


def ways_out_of_a_secret(tree: ast.AST) -> Iterator[int]:
    """Lines that call `reveal`, name it in a text as `getattr` would, or reach for the value behind it."""
    for node in ast.walk(tree):
        is_attribute = isinstance(node, ast.Attribute) and node.attr in {"reveal", "_value"}
        is_text = isinstance(node, ast.Constant) and node.value in {"reveal", "_value"}
        if is_attribute or is_text:
            yield node.lineno


def test_the_product_is_found() -> None:
    names = {name_of(path) for path in PRODUCT}
    assert {"manage.py", "environments/encryption.py", "workers/api/starts.py", "controlplane/settings.py"} <= names


# --- Secrets -----------------------------------------------------------------------------------------------------------


def test_a_secret_is_revealed_in_four_files_only() -> None:
    assert {name_of(path) for path in PRODUCT if list(ways_out_of_a_secret(tree_of(path)))} == REVEALERS


@pytest.mark.parametrize(
    "source",
    [
        "secret.reveal()",
        "getattr(secret, 'reveal')()",
        "out = secret.reveal",
        "secret._value",
        "map(Secret.reveal, secrets)",
    ],
)
def test_the_search_finds_every_way_out_of_a_secret(source: str) -> None:
    assert list(ways_out_of_a_secret(ast.parse(source))) == [1]


def markings_as_safe(tree: ast.AST) -> Iterator[int]:
    """Lines that use `mark_safe` or make a SafeString; naming that as a type is no harm."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name == "mark_safe":
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"SafeString", "SafeText"}:
            yield node.lineno


def test_no_text_is_marked_safe() -> None:
    assert [f"{name_of(path)}:{line}" for path in PRODUCT for line in markings_as_safe(tree_of(path))] == []


@pytest.mark.parametrize(
    "source", ["mark_safe(text)", "safestring.mark_safe(text)", "SafeString(text)", "map(mark_safe, texts)"]
)
def test_the_search_finds_what_is_marked_safe(source: str) -> None:
    assert list(markings_as_safe(ast.parse(source))) == [1]


def test_no_template_turns_escaping_off() -> None:
    templates = [
        *(ROOT / "templates").rglob("*.html"),
        *(path for package in PACKAGES for path in (ROOT / package).rglob("*.html")),
    ]
    for path in templates:
        assert not re.search(r"\|\s*safe(seq)?\b|autoescape\s+off", path.read_text()), path


# --- Directions --------------------------------------------------------------------------------------------------------

#: What may answer to a browser or a program; all other rooms are the domain.
OUTWARD = ("controlplane/", "workers/admin/", "workers/api/", "environments/admin/", "environments/templatetags/")
DOMAIN = [path for path in PRODUCT if name_of(path).startswith(PACKAGES) and not name_of(path).startswith(OUTWARD)]
OF_PAGES = ("django.contrib.admin", "django.http", "django.shortcuts", "django.urls", "django.views")


def imports_of(roots: Collection[str]) -> list[str]:
    """Which file imports a module whose first part is among the roots."""
    return [
        f"{name_of(path)}: {module}"
        for path in PRODUCT
        for module in imported_modules(tree_of(path))
        if module.split(".")[0] in roots
    ]


def test_the_product_knows_nothing_of_its_tests() -> None:
    assert imports_of({"tests", "pytest", "hypothesis", "model_bakery"}) == []


def test_the_search_finds_the_imports_that_are_allowed() -> None:
    assert imports_of({"environments"})


def test_the_domain_knows_no_request_and_no_page() -> None:
    assert {"workers/api_keys/issuing.py", "workers/lifecycle/starts.py"} <= {name_of(path) for path in DOMAIN}
    for path in DOMAIN:
        modules = imported_modules(tree_of(path))
        assert not [module for module in modules if module.startswith(OF_PAGES)], path


def test_the_search_sees_an_import_within_a_function() -> None:
    assert imported_modules(ast.parse("def f():\n    from controlplane.startup import env")) == {
        "controlplane.startup.env"
    }


# --- Size and names ----------------------------------------------------------------------------------------------------


def test_no_file_outgrows_400_lines() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in PRODUCT}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_module_says_in_a_sentence_what_it_holds() -> None:
    sources = {name_of(path): path.read_text() for path in PRODUCT}
    assert [
        name for name, source in sources.items() if source.strip() and not ast.get_docstring(ast.parse(source))
    ] == []


def test_no_module_is_named_for_nothing() -> None:
    hollow = {"utils", "helpers", "common", "manager", "managers", "base", "signals"}
    # Django looks for a database engine in the module `base` of its package.
    modules = [path for path in PRODUCT if "engines" not in path.parts]
    assert [name_of(path) for path in modules if path.stem in hollow] == []


# --- What is loaded ----------------------------------------------------------------------------------------------------


def test_temporals_client_is_loaded_by_nobody_who_only_serves() -> None:
    code = "import django; django.setup(); import controlplane.urls, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    assert "temporalio" not in done.stdout.split()
    assert "workers.reports.first_boot" in done.stdout.split()


# --- The benchmark's yardstick -----------------------------------------------------------------------------------------


REFERENCE = sorted((ROOT / "tests" / "bench" / "reference").glob("*.py"))
REFERENCE_MODULES = [name_of(path).removesuffix(".py").replace("/", ".") for path in REFERENCE]


def test_the_reference_floor_names_nothing_of_the_product() -> None:
    """Not within a function either, where it would be imported later."""
    assert "tests.bench.reference.application" in REFERENCE_MODULES
    roots = {module.split(".")[0] for path in REFERENCE for module in imported_modules(tree_of(path))}
    assert "jwt" in roots
    assert not roots & {*PACKAGES, "django", "rest_framework", "rest_framework_simplejwt"}


def test_the_reference_floor_loads_nothing_of_the_product() -> None:
    """Not by way of another module either."""
    program = f"import sys, {', '.join(REFERENCE_MODULES)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    loaded = set(done.stdout.split())
    assert {"tests", "psycopg_pool"} <= loaded
    assert not loaded & {*PACKAGES, "django"}
