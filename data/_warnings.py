"""Words that a user should read before the rows."""

OFFENSIVE = "Contains offensive language and prejudice on purpose: read it with care."
