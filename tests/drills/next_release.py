"""A release after this one: a copy of this code, whose ledger has one more column and an index of it."""

import shutil
from pathlib import Path

from controlplane.releases import CURRENT, OUR_APPS
from tests.drills.service import Service
from tests.support.processes import ROOT

NUMBER = f"{CURRENT}.next"
#: What the copy writes into the new column; the code of this release leaves it empty.
WRITTEN = "by the next release"
CODE = (*OUR_APPS, "examples", "templates")

COLUMN = 'models.CharField(blank=True, db_default="", default={default!r}, max_length=63)'
INDEX = 'models.Index(fields=["remark", "-started_at"], name="workers_start_by_remark")'
ADD_COLUMN = f'''"""A column of the ledger."""

from django.db import migrations, models

from environments.database.schema_changes import SchemaChange


class Migration(SchemaChange):
    dependencies = [("workers", "{{last}}")]
    operations = [migrations.AddField("workerstart", "remark", {COLUMN.format(default=WRITTEN)})]
'''
ADD_INDEX = f'''"""An index of the ledger."""

from django.db import migrations, models

from environments.database.schema_changes import AddIndexMeanwhile


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("workers", "9001_column")]
    operations = [AddIndexMeanwhile("workerstart", {INDEX})]
'''
RELEASES = """

EARLIER = (*EARLIER, Release(CURRENT, f"v{{CURRENT}}", {last}))
CURRENT = {number!r}
"""


class NextService(Service):
    """A service of the next release."""

    @classmethod
    def unpack(cls, directory: Path) -> None:
        """Lays its code down in a directory, which all services of it then run from."""
        directory.mkdir()
        for name in CODE:
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "manage.py", directory)
        last = {app: max(path.stem for path in (ROOT / app / "migrations").glob("[0-9]*.py")) for app in OUR_APPS}
        write_migrations(directory / "workers" / "migrations", last["workers"])
        _write_model(directory / "workers" / "models" / "starts.py")
        with (directory / "controlplane" / "releases.py").open("a") as releases:
            releases.write(RELEASES.format(last=last, number=NUMBER))
        cls.root = directory


def write_migrations(directory: Path, last: str) -> list[Path]:
    """The release's own migrations, after the last one of this release."""
    paths = [directory / "9001_column.py", directory / "9002_index.py"]
    for path, text in zip(paths, (ADD_COLUMN.format(last=last), ADD_INDEX), strict=True):
        path.write_text(text)
    return paths


def _write_model(path: Path) -> None:
    text = path.read_text()
    for place, addition in (
        ("\n    class Meta:\n", f"    remark = {COLUMN.format(default=WRITTEN)}\n"),
        ("        ]\n\n    def __str__", f"            {INDEX},\n"),
    ):
        if text.count(place) != 1:
            message = f"{path} has not one {place!r}"
            raise AssertionError(message)
        text = text.replace(place, addition + place)
    path.write_text(text)
