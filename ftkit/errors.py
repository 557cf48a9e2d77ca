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


class Diverged(FtkitError, ArithmeticError):
    """A training whose loss became NaN or infinite. history: what was logged, list of dicts."""

    def __init__(self, what, value, trainer):
        state, args = trainer.state, trainer.args
        self.history = state.log_history
        super().__init__(
            f"{what} became {value} in update {state.global_step + 1:,} of {state.max_steps:,}, at "
            f"learning rate {args.learning_rate:g}, and the training was stopped; its weights are "
            "of no use. Mostly the rate is too high: try a tenth of it"
            + (", or compute in float32, whose numbers reach further" if args.fp16 else "")
            + ". Otherwise look for a wrong label or a text that is out of the way."
        )


class NotANumber(FtkitError, ArithmeticError):
    """A model's output is NaN or infinite, so that it gives no answer: not even the first one."""


class ClaimNotHeld(FtkitError, AssertionError):
    """A lesson's claim did not hold on held-out data."""
