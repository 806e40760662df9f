"""The glossary holds: each model stands in it, each name it gives exists, and no word that it refuses is shown to people."""

import re
from typing import Any

import pytest
from django.apps import apps
from django.db import models

from tests.support.processes import ROOT
from workers.models import Liveness

pytestmark = pytest.mark.once

OUR_APPS = ("environments", "workers", "controlplane")
MODELS = {model.__name__: model for app in OUR_APPS for model in apps.get_app_config(app).get_models()}
#: Pages on which people sign in: an account there is a person's own.
OTHERS_WORDS = ("account", "mfa", "socialaccount", "unfold")


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "design" / "glossary.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] != "Word"]


WORDS = {word.lower() for row in rows() for word in row[0].split(", ")}
NAMES = sorted({name for row in rows() for name in re.findall(r"`([\w.]+)`", row[2])})
REFUSED = sorted({word for row in rows() for word in row[3].split(", ") if word})
#: HTTP's word for a client is its own.
REFUSED_WORDS = re.compile(rf"\b(?<!user )({'|'.join(REFUSED)})s?\b", re.IGNORECASE)


def test_the_glossary_is_read_as_it_is_written() -> None:
    assert {"worker", "api key", "seal", "late"} <= WORDS
    assert {"Worker.is_draining", "Liveness.LATE"} <= set(NAMES)
    assert {"runner", "session"} <= set(REFUSED)
    assert all(len(row) == 4 for row in rows())


def test_no_word_stands_twice() -> None:
    words = [word.lower() for row in rows() for word in row[0].split(", ")]
    assert sorted(set(words)) == sorted(words)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_each_model_stands_in_it_by_the_name_that_people_read(model: Any) -> None:
    assert str(model._meta.verbose_name).lower() in WORDS


@pytest.mark.parametrize("name", NAMES)
def test_each_name_of_the_code_is_there(name: str) -> None:
    holder, _, part = name.partition(".")
    if holder == "Liveness":
        assert part in Liveness.__members__
    else:
        assert not part or MODELS[holder]._meta.get_field(part)


def texts_of(model: type[models.Model]) -> list[str]:
    """What the console shows of a model: its names, those of its fields, their help and their choices."""
    fields = model._meta.fields
    texts = [model._meta.verbose_name, model._meta.verbose_name_plural]
    texts += [text for field in fields for text in (field.verbose_name, field.help_text)]
    texts += [label for field in fields for _, label in field.flatchoices]
    return [str(text) for text in texts]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_no_refused_word_names_a_row_or_a_field(model: type[models.Model]) -> None:
    assert [text for text in texts_of(model) if REFUSED_WORDS.search(text)] == []


def test_no_refused_word_stands_on_a_page_about_the_fleet() -> None:
    folder = ROOT / "templates"
    pages = [path for path in folder.rglob("*.html") if path.relative_to(folder).parts[0] not in OTHERS_WORDS]
    shown = {
        path: re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<[^>]*>", " ", path.read_text(), flags=re.DOTALL)
        for path in pages
    }
    assert len(pages) > 20
    assert {path.name: found for path, text in shown.items() if (found := REFUSED_WORDS.findall(text))} == {}


def test_times_and_truths_are_named_alike() -> None:
    for model in MODELS.values():
        for field in model._meta.fields:
            if isinstance(field, models.DateTimeField):
                assert field.name.endswith("_at"), (model, field)
            if isinstance(field, models.BooleanField):
                assert re.match(r"is_|requires_|otel_", field.name), (model, field)
