"""A claim's numbers and verdict in words, as tables and figures show them."""

import math


def as_float(value):
    """Return a number of a claim's JSON; NaN for None and `nan`, as claims and Jupyter write it."""
    value = math.nan if value is None else float(value)
    return value if math.isfinite(value) else math.nan


def number(value):
    """Return a measured number with as many digits as its size deserves; NaN where it is none."""
    value = as_float(value)
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def estimate(value, *, relative=False, sign=False):
    """Return `0.771 [0.752, 0.789]` for a dict of value, low and high; a dash for None."""
    if value is None:
        return "–"
    def words(x):
        x = as_float(x)
        text = f"{100 * x:.0f}%" if relative else number(x)
        return f"+{text}" if sign and x > 0 else text
    return f"{words(value['value'])} [{words(value['low'])}, {words(value['high'])}]"


def verdict(claim, yes="yes", no="NO"):
    """Return whether a claim held, in a word; an open question that did not hold is no failure."""
    if not claim["judged"]:
        return "not judged"
    if claim.get("expect") == "open":
        return f"{'held' if claim['held'] else 'did not hold'} (open question)"
    return yes if claim["held"] else no


def needed(claim):
    """Return what the whole interval of a claim had to be, such as `≥ 0.05`, `≤ -40%`, `> 0`."""
    kind, limit = next(iter(claim["bound"].items()))
    if kind == "at_least" and not limit:
        return "> 0"
    words = f"{100 * limit:g}%" if claim["relative"] else f"{limit:g}"
    return f"{'≥' if kind == 'at_least' else '≤'} {words}"


def leading(claims):
    """Return the claim that stands for a lesson: the first that it relies on; None without any."""
    return next((c for c in claims if c.get("expect") != "open"), claims[0] if claims else None)


def claim_cells(claim):
    """Return a claim's row: claim, opponent, its value, the method's, difference, needed, held."""
    # A claim about a value alone repeats it as its difference; one column is enough.
    alone = claim.get("after") and not claim.get("before")
    difference = None if alone else claim.get("difference")
    return (claim["claim"], claim.get("opponent") or "–", estimate(claim.get("before")),
            estimate(claim.get("after")),
            estimate(difference, relative=claim["relative"], sign=True), needed(claim),
            verdict(claim))
