"""What the forms of connections say of what a network may ask for and connections do not hold yet."""

import re

import pytest
from django.urls import reverse
from django.utils.html import strip_tags

from tests.support.console import person, signed_in
from tests.support.factories import Fleet


def form(model: str) -> str:
    client = signed_in(person(is_staff=True, is_superuser=True))
    return client.get(reverse(f"admin:environments_{model}_add")).content.decode()


LEADS_ON = "docs/operate/private-networks.md"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("temporalconnection", "may ask for a client certificate, which connections do not hold yet"),
        ("litellmconnection", "Verify calls it without a proxy"),
        ("telemetrysettings", "may ask for headers, which workers are not given yet"),
    ],
)
def test_a_form_says_what_connections_do_not_hold_yet_and_leads_on(fleet: Fleet, model: str, words: str) -> None:
    found = form(model)
    text = re.sub(r"\s+", " ", strip_tags(found))
    assert words in text
    assert LEADS_ON in text.partition(words)[2][:200]


def test_the_help_of_a_field_goes_before(fleet: Fleet) -> None:
    found = form("telemetrysettings")
    assert "Empty exports nothing, even where telemetry is enabled. A collector may ask" in found
