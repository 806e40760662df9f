"""An organization and a manager's key for all of it."""

import pytest

from tests.support import factories
from tests.support.factories import Fleet
from tests.support.go_clients import GoClient
from workers.models import KeyRole


@pytest.fixture
def manager(fleet: Fleet) -> GoClient:
    return GoClient(factories.issue_token(fleet.organization, role=KeyRole.MANAGER))
