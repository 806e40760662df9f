"""What this service writes, no other account of the machine can read: by every entry, under every umask."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import private_files
from tests.support.processes import ROOT

pytestmark = pytest.mark.once

#: Ways to begin, as what runs after the umask was set; `manage` runs a command.
ENTRIES = {
    "manage.py": """
manage('quickstart', '--no-serve')
manage('dumpdata', 'auth', '--output', os.path.join(folder, 'everything.json'))
""",
    "wsgi": "import controlplane.wsgi",
    "django": "import django; django.setup(); from django.db import connection; connection.ensure_connection()",
}
SCRIPT = """
import os, sys, json, stat
folder, umask, body = sys.argv[1], int(sys.argv[2], 8), sys.argv[3]
os.umask(umask)
def manage(*arguments):
    import manage
    sys.argv = ['manage.py', *arguments]
    try:
        manage.main()
    except SystemExit as end:
        assert not end.code, end.code
sys.stdout = sys.stderr
exec(body)
from django.db import connection
with connection.cursor() as cursor:  # so that what lies beside the database is there
    cursor.execute('CREATE TABLE own (n int)')
modes = {}
for path, folders, files in os.walk(folder):
    for name in ['.', *files]:
        modes[os.path.join(path, name)] = stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode)
sys.__stdout__.write(json.dumps(modes))
"""


def environ_of(folder: Path) -> dict[str, str]:
    unset = ("SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS")
    return {name: value for name, value in os.environ.items() if name not in unset} | {
        "CONTROL_PLANE_ENV_FILE": str(folder / ".env"),
        "DATABASE_URL": f"sqlite:///{folder}/var/deep/controlplane.sqlite3",
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }


@pytest.fixture(scope="module")
def made_secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of secrets as it is made."""
    folder = tmp_path_factory.mktemp("secrets")
    make = "from controlplane.startup import secrets_file; secrets_file.ensure()"
    subprocess.run([sys.executable, "-c", make], cwd=ROOT, env=environ_of(folder), check=True)  # noqa: S603
    return folder / ".env"


@pytest.fixture
def folder(tmp_path: Path, made_secrets: Path) -> Path:
    """A folder that has nothing but secrets."""
    shutil.copy2(made_secrets, tmp_path / ".env")  # with its mode
    return tmp_path


def modes_after(folder: Path, umask: str, body: str) -> dict[str, int]:
    """The modes of all that is below the folder afterwards."""
    command = [sys.executable, "-c", SCRIPT, str(folder), umask, body]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=environ_of(folder), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {os.path.relpath(path, folder): mode for path, mode in json.loads(done.stdout).items()}


def open_to_others(modes: dict[str, int]) -> dict[str, str]:
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


@pytest.mark.parametrize(
    ("umask", "entry"),
    [("022", "manage.py"), *((umask, entry) for umask in ("000", "022", "027", "077") for entry in ("wsgi", "django"))],
)
def test_no_other_account_reads_what_an_entry_writes(folder: Path, umask: str, entry: str) -> None:
    modes = modes_after(folder, umask, ENTRIES[entry])
    assert open_to_others(modes) == {}
    written = {Path(name).name for name in modes}
    assert {".env", "controlplane.sqlite3", "controlplane.sqlite3-wal", "controlplane.sqlite3-shm"} <= written
    assert (entry == "manage.py") == ("everything.json" in written)


def test_an_existing_database_is_taken_from_others_with_what_lies_beside_it(folder: Path) -> None:
    deep = folder / "var" / "deep"
    deep.mkdir(parents=True, mode=0o700)
    for suffix in private_files.BESIDE:
        (deep / f"controlplane.sqlite3{suffix}").touch()
        (deep / f"controlplane.sqlite3{suffix}").chmod(0o664)
    modes = modes_after(folder, "022", ENTRIES["django"])
    assert {name: mode for name, mode in open_to_others(modes).items() if "sqlite3" in name} == {}


def test_a_file_that_cannot_be_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another account, or on a file system that keeps no modes; root, as which tests may run, can close any."""
    path = tmp_path / "controlplane.sqlite3"
    path.touch(mode=0o644)
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(ImproperlyConfigured, match=f"{path}.*run chmod go="):
        private_files.close_database(path)


def test_folders_are_made_private_and_those_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_files.make_folder(tmp_path / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [
        0o755,
        0o700,
        0o700,
    ]


def test_what_others_have_linked_beside_a_database_is_left_as_it_is(tmp_path: Path) -> None:
    """As in a folder where everybody may make files: the link may lead to what has to stay readable."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    elsewhere.chmod(0o644)
    (tmp_path / "a.sqlite3").touch()
    (tmp_path / "a.sqlite3-wal").symlink_to(elsewhere)
    private_files.close_database(tmp_path / "a.sqlite3")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644


def test_a_database_is_closed_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = [tmp_path / "real" / f"a.sqlite3{suffix}" for suffix in ("", "-wal")]
    for path in real:
        path.touch()
        path.chmod(0o644)
    (tmp_path / "link.sqlite3").symlink_to(real[0])
    private_files.close_database(tmp_path / "link.sqlite3")
    assert [stat.S_IMODE(path.stat().st_mode) for path in real] == [0o600, 0o600]
