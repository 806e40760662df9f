"""Unambiguous everywhere, sortable by eye, to the second, with the time zone."""

DATE_FORMAT = "Y-m-d"
DATETIME_FORMAT = "Y-m-d H:i:s e"
SHORT_DATETIME_FORMAT = DATETIME_FORMAT
