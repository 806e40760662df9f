"""JSON values that nobody expects."""

import functools

from hypothesis import strategies as st

from workers.models.instances import CUT

odd_texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=30) | st.sampled_from(
    ["x" * 4_097, "\0", CUT]
)


odd_leaves = st.none() | st.booleans() | st.floats() | odd_texts | st.sampled_from([10**400, -(10**308), 10**307])


odd_values = st.recursive(
    odd_leaves,
    lambda inside: (
        st.lists(inside, max_size=5)
        | st.dictionaries(odd_texts | st.just("k" * 600), inside, max_size=5)
        | inside.map(lambda value: functools.reduce(lambda within, _: [within], range(15), value))
    ),
    max_leaves=8,
)
