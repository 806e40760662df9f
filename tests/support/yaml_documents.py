"""Documents of fleets that Hypothesis makes up."""

from typing import Any

import yaml
from django.db.models import BooleanField, CharField, DateField, FloatField, IntegerField, TextField
from hypothesis import strategies as st

from environments.models.json_fields import ObjectField, TagsField
from workers.fleet.kinds import ORGANIZATION, Kind

# --- Any input ---------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["acme", "cloud", "default", "w1"])


ANY_SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=80),
    st.sampled_from(["127.0.0.1:7233", "https://acme.example", "always_on", "x" * 3000]),
)


SECRETS = st.sampled_from([{"env": "TEMPORAL_API_KEY"}, {"env": "LITELLM_API_KEY"}])


BAD_SECRETS = st.sampled_from([{"env": "MISSING"}, {"file": "nowhere"}, "plain", None])


FITTING: dict[type[Any], st.SearchStrategy[Any]] = {
    BooleanField: st.booleans(),
    IntegerField: st.integers(-1, 4000),
    FloatField: st.floats(-1, 2),
    DateField: st.one_of(st.dates(), st.dates().map(str), st.sampled_from(["2027-02-30", "tomorrow"])),
    CharField: st.one_of(
        st.text(max_size=70), st.sampled_from(["127.0.0.1:7233", "https://acme.example", "always_on"])
    ),
    TextField: st.text(),
    TagsField: st.one_of(st.text(max_size=70), st.lists(st.text(max_size=9), max_size=3)),
    ObjectField: st.dictionaries(st.text(max_size=9), st.one_of(st.booleans(), st.integers(), st.text()), max_size=3),
}


@st.composite
def objects(draw: st.DrawFn, kind: Kind, *, may_be_wrong: bool) -> dict[str, Any]:
    """An object of a kind, with values that mostly fit, so that the database is reached too, or also any others."""

    def value(fitting: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = ANY_SCALAR) -> Any:
        return draw(st.one_of(fitting, other) if may_be_wrong else fitting)

    drawn = {kind.key: value(NAMES)}
    for name, field in kind.fields.items():
        if name != kind.key and draw(st.booleans()):
            (fitting,) = [strategy for type_, strategy in FITTING.items() if isinstance(field, type_)]
            drawn[name] = value(fitting)
    drawn |= {name: value(st.one_of(NAMES, st.none())) for name in kind.pointers if draw(st.booleans())}
    drawn |= {"api_key": value(SECRETS, BAD_SECRETS)} if kind.has_api_key and draw(st.booleans()) else {}
    drawn |= {"id": value(st.uuids().map(str))} if kind.takes_id and draw(st.booleans()) else {}
    for name, child in kind.children.items():
        drawn[name] = draw(st.lists(objects(child, may_be_wrong=may_be_wrong), max_size=2))
    return drawn


class WithoutAnchors(yaml.SafeDumper):
    """Writes a repeated value out."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def documents(*, may_be_wrong: bool) -> st.SearchStrategy[str]:
    organizations = st.lists(objects(ORGANIZATION, may_be_wrong=may_be_wrong), max_size=2)
    return organizations.map(lambda drawn: yaml.dump({"organizations": drawn}, Dumper=WithoutAnchors))
