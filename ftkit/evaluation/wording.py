"""What a result says of itself in a sentence: on what it was measured, what its interval covers."""

from ftkit.evaluation.resampling import group_numbers, in_words


def covered(examples, groups, what="its value"):
    """What the 95% intervals of so many examples in so many groups (or as many) mean.

    what: is inside of them. Other trainings are not covered: see claim(seeds=).

    An interval is a procedure that is right 19 times in 20 (Neyman 1937, "Outline of a theory of
    statistical estimation"); over what it is right is what was resampled.
    """
    if groups == 1 and examples > 1:
        return "no intervals: with one group it cannot be told what other groups would give"
    other = "examples" if groups == examples else "groups of examples"
    return (f"if this were repeated with other {other}, 19 of 20 such 95% intervals would contain "
            f"{what} over all such {other}")


def notes(evaluation):
    """Yield what belongs beside the numbers of an Evaluation."""
    numbers = group_numbers(evaluation.groups, len(evaluation))
    yield in_words(len(evaluation), numbers)
    if evaluation.undefined is not None:
        yield f"the model's output was NaN for {int(evaluation.undefined.sum())} of them"
    if evaluation.absent and "macro_f1" in evaluation.parts:
        yield f"none of the class {', '.join(map(str, evaluation.absent))}"
    if evaluation.computed:
        yield str(evaluation.computed)
    yield covered(len(evaluation), int(numbers.max()) + 1)
