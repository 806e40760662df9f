"""The organization of the key, and its members."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from environments.models import Membership, Organization
from workers.api.authentication import key_of
from workers.api.listing import FilterSerializer, each, page_of, slice_of
from workers.api.managing import CHANGING, ClosedView, asked_of, changed, require_manager, with_version
from workers.api.requests import valid_body, valid_query
from workers.api.serializers.managed import MemberSerializer, OrganizationSerializer, OrganizationUpdateSerializer
from workers.fleet.editor import require_all_of
from workers.reports.registered import DescribedOrganization

MEMBER_PAGE = page_of(MemberSerializer, "Member")


class OrganizationView(ClosedView):
    """The organization of the key."""

    refusals = ()

    @extend_schema(operation_id="get_organization", responses=OrganizationSerializer)
    def get(self, request: Request) -> Response:
        """The organization, and which connections it points to. It takes a key for the organization."""
        return _shown(_organization(request))

    @extend_schema(
        operation_id="update_organization",
        parameters=CHANGING,
        request=OrganizationUpdateSerializer,
        responses=OrganizationSerializer,
    )
    def patch(self, request: Request) -> Any:
        """Change the organization's name, or which connections it points to."""
        told, asked = valid_body(request, OrganizationUpdateSerializer), asked_of(request)
        return changed(request, _organization(request), told, asked, _shown)


class MembersView(ClosedView):
    """The people of the organization."""

    refusals = ()

    @extend_schema(operation_id="list_members", parameters=[FilterSerializer], responses=MEMBER_PAGE)
    def get(self, request: Request) -> Response:
        """Who has which role, by name. It takes a manager's key for the organization."""
        asked = valid_query(request, FilterSerializer)
        organization = _organization(request)
        require_manager(request)
        rows = Membership.objects.filter(organization=organization).select_related("user")
        found, cursor = slice_of(asked, rows, ("user__username", "pk"))
        return Response({"items": each(MemberSerializer, found), "next_cursor": cursor})


def _organization(request: Request) -> Organization:
    key = key_of(request)
    require_all_of(key.organization_id, key)
    return Organization.objects.get(pk=key.organization_id)


def _shown(organization: Organization, status: int = 200) -> Response:
    shown = OrganizationSerializer(DescribedOrganization(organization)).data
    return with_version(Response(shown, status=status), organization)
