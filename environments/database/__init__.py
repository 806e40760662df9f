"""Database machinery: tenancy, removals, statements made once, changes of the schema. Knows no model of ours."""
