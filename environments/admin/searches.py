"""What an address may ask of the console's lists and searches: so much and no more, whoever wrote it.

What is beyond is cut where the rest still says what was meant, and told; else it is refused.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.admin.views.main import IGNORED_PARAMS, ORDER_VAR, SEARCH_VAR
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.http import HttpRequest, JsonResponse
from django.utils.text import capfirst, smart_split_re
from unfold.views import ChangeList

from environments.admin.signed_in import staff_of
from environments.models import Membership, Role

MOST_WORDS = 10
LONGEST_SEARCH = 200
SEARCH_IS_CUT = f"Only the first {MOST_WORDS} words are searched, and of these at most {LONGEST_SEARCH} characters."
#: Columns that a list is put in order by.
MOST_COLUMNS, LONGEST_NUMBER = 10, 3
ORDER_IS_CUT = f"The list is in the order of the first {MOST_COLUMNS} columns that were named."
#: Values of all filters of an address together, those of a list of ids among them.
MOST_VALUES = 100
LONGEST_VALUE = 200
TOO_MUCH = (
    f"The address asks for more than {MOST_VALUES} values, or for one of more than {LONGEST_VALUE} characters. "
    "Nothing was looked up: choose fewer filters."
)
#: How an address may compare a column: what costs the same for every value.
COMPARISONS = frozenset({"exact", "in", "isnull", "gt", "gte", "lt", "lte"})


class TooMuchAskedError(ValueError):
    """An address that would decide what a statement costs."""


def cut_search(text: str, separators: str = "") -> tuple[str, bool]:
    """The text up to the end of its last word that is searched, and whether any word was left out.

    `separators` part words as spaces do.
    """
    parted = text.translate(dict.fromkeys(map(ord, separators), " "))
    words = smart_split_re.finditer(parted[:LONGEST_SEARCH])
    end = max((word.end() for word in islice(words, MOST_WORDS)), default=0)
    return text[:end], bool(parted[end:].strip())


def is_column(model: type[models.Model], lookup: str) -> bool:
    """Whether a lookup compares a column of the model's own: it joins nothing, looks into no JSON, has no pattern."""
    name, *rest = lookup.split("__")
    try:
        field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    if not field.concrete or isinstance(field, models.JSONField):
        return False
    if field.is_relation and rest[:1] in (["pk"], [field.target_field.name]):
        rest = rest[1:]
    return not rest or (len(rest) == 1 and rest[0] in COMPARISONS)


def parameters_of(filters: Iterable[Any]) -> set[str]:
    """What a list's own filters are called in its address, but for those of columns."""
    return {
        str(each.parameter_name) for each in filters if isinstance(each, type) and issubclass(each, SimpleListFilter)
    }


def require_few(filters: Mapping[str, list[str]]) -> None:
    """TooMuchAskedError when an address has more values than a list is filtered by, or too long ones."""
    values = [
        value
        for name, given in filters.items()
        for text in given
        for value in (text.split(",") if name.endswith("__in") else [text])
    ]
    if len(values) > MOST_VALUES or any(len(value) > LONGEST_VALUE for value in values):
        raise TooMuchAskedError(TOO_MUCH)


class Chip(NamedTuple):
    """One thing that the address of a list says, and the address without it."""

    text: str
    without: str


class BoundedList(ChangeList):  # type: ignore[misc]  # unfold has no types
    """A page of a list whose statements do not grow with its address."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = f"Choose: {self.opts.verbose_name}" if self.is_popup else capfirst(self.opts.verbose_name_plural)

    @property
    def is_narrowed(self) -> bool:
        """Whether the address leaves rows out."""
        return bool(self.query or set(self.filter_params) - set(IGNORED_PARAMS) - {SEARCH_VAR, ORDER_VAR})

    @property
    def chips(self) -> list[Chip]:
        """What is searched and filtered for, in words."""
        own = [
            (spec, [name for name in spec.expected_parameters() if name in self.filter_params])
            for spec in self.filter_specs
        ]
        chips = [
            Chip(f"{spec.title}: {_chosen(spec, self)}", self.get_query_string(remove=names))
            for spec, names in own
            if names
        ]
        told = {name for _, names in own for name in names} | set(IGNORED_PARAMS)
        for name, given in self.filter_params.items():
            if name not in told:
                words = name.partition("__")[0].replace("_", " ")
                chips.append(Chip(f"{words}: {', '.join(given)}", self.get_query_string(remove=[name])))
        if self.query:
            chips.insert(0, Chip(f"search: {self.query}", self.get_query_string(remove=[SEARCH_VAR])))
        return chips

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Cuts search and order, and says so; TooMuchAskedError for filters, of which none can be left out."""
        # Of its own filters a list takes one value each, among those that it knows.
        free = set(IGNORED_PARAMS) | parameters_of(self.list_filter)
        require_few({name: given for name, given in self.filter_params.items() if name not in free})
        self._cut_search(request, self.params.get(SEARCH_VAR, ""))
        self._cut_order(request, self.params.get(ORDER_VAR, "").split("."))
        self._remember_order(request)
        return super().get_queryset(request, exclude_parameters)

    def _cut_search(self, request: HttpRequest, text: str) -> None:
        cut, is_cut = cut_search(text, self.model_admin.name_separators)
        if is_cut:
            self.query = cut
            self._keep(SEARCH_VAR, cut)
            messages.warning(request, SEARCH_IS_CUT)

    def _cut_order(self, request: HttpRequest, columns: list[str]) -> None:
        """To those columns that a list is sorted by at all, which Django looks at in its links alone."""
        if ORDER_VAR not in self.params:
            return
        sortable = [column for column in columns if self._name_of(column) in self.sortable_by]
        self._keep(ORDER_VAR, ".".join(sortable[:MOST_COLUMNS]))
        if len(sortable) > MOST_COLUMNS:
            messages.warning(request, ORDER_IS_CUT)

    def _remember_order(self, request: HttpRequest) -> None:
        """The order that was chosen last stays for this login, until another is chosen or it is taken off.

        It is kept by the columns' names: their numbers change with the columns that a list shows.
        """
        if self.is_popup:
            return
        name = f"order of {self.opts.label_lower}"
        kept = request.session.get(name, "")
        if ORDER_VAR in self.params:
            numbers = [number for number in self.params[ORDER_VAR].split(".") if number]
            chosen = ".".join(f"{'-' * number.startswith('-')}{self._name_of(number)}" for number in numbers)
            if chosen != kept:
                request.session[name] = chosen
        elif kept:
            places = {column: number for number, column in enumerate(self.list_display) if column in self.sortable_by}
            found = [(column.startswith("-"), places.get(column.removeprefix("-"))) for column in kept.split(".")]
            if order := [f"{'-' * is_falling}{place}" for is_falling, place in found if place is not None]:
                self._keep(ORDER_VAR, ".".join(order))

    def _name_of(self, column: str) -> Any:
        _, _, number = column.rpartition("-")
        is_known = number.isascii() and number.isdigit() and len(number) <= LONGEST_NUMBER
        return dict(enumerate(self.list_display)).get(int(number)) if is_known else None

    def _keep(self, name: str, value: str) -> None:
        """In the links of the page, too."""
        self.params[name] = value
        self.filter_params[name] = [value]


def _chosen(spec: Any, page: ChangeList) -> str:
    """What a filter is set to, as it offers it."""
    return ", ".join(str(choice["display"]) for choice in spec.choices(page) if choice["selected"]) or "something else"


class BoundedAutocomplete(AutocompleteJsonView):
    """Choices for a field; one that cannot be chosen says that words of the search were left out."""

    def get_queryset(self) -> Any:
        """Of organizations to be a member of only those where the person may make members."""
        rows = super().get_queryset()
        if self.source_field is not Membership._meta.get_field("organization"):
            return rows
        return staff_of(self.request).within(rows, "pk", Role.ADMINISTRATOR)

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> JsonResponse:
        """The choices as Django's own."""
        response: Any = super().get(request, *args, **kwargs)
        page: Any = self.model_admin
        _, is_cut = cut_search(self.term, page.name_separators)
        if not is_cut:
            return response  # type: ignore[no-any-return]  # Django's stubs have it as any response
        found = json.loads(response.content)
        return JsonResponse({**found, "results": [{"text": SEARCH_IS_CUT, "disabled": True}, *found["results"]]})
