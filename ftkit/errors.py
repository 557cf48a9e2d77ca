"""The errors a user can meet: each names the bad value, what was expected and what to do."""


class FtkitError(Exception):
    """Base of every error that ftkit raises on purpose."""


class FetchError(FtkitError):
    """A model or data set could not be fetched, verified or stored."""


class DataError(FtkitError, ValueError):
    """Data does not have the columns, labels or size that were asked for."""


class DataWarning(UserWarning):
    """Something in a user's data that is read, but looks like a mistake."""


class SettingError(FtkitError, ValueError):
    """A setting (a profile, a metric, an argument of fit) is not one that exists."""


class ClaimNotHeld(FtkitError, AssertionError):
    """A lesson's claim did not hold on held-out data."""
