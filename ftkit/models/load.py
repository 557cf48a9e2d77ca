"""Loads a base model and its tokenizer for a task: from the catalog, a local folder or the hub."""

import json
import shutil
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from ftkit.assets import catalog, fetch, mlflow_store
from ftkit.errors import DataError, FetchError, SettingError
from ftkit.models import adapters, capabilities, onnx
from ftkit.models.hardware import this_machine
from ftkit.models.model import Model, quiet, quiet_peft
from ftkit.models.pooling import set_pooling, with_pooling
from ftkit.models.precision import FORMATS, choose_dtype
from ftkit.models.saving import read_card
from ftkit.models.specs import SPECS, TASKS
from ftkit.models.weights import check_loaded, head_apart


def load_model(source, task=None, *, labels=None, pretrained=True, dtype="float32", seed=0,
               revision=None, pooling=None):
    """Load a base model with the head that a task needs.

    source: a name of the catalog (`ftkit models` lists them), a folder, a hub id "owner/name", or
    a registered version, "registry:support-voice@champion" or "registry:support-voice/3"; a folder
    with the name of a catalog model is "./name".
    task: one of models.TASKS; by default what a saved folder says, else "causal-lm" for a decoder.
    labels: class names for classification and tagging; by default those of the head that is stored
    there, if it is one for the task. pretrained=False keeps the architecture and
    draws new weights from `seed`, which also fixes the weights of a new head.
    dtype: "float32", "bf16", "fp16", or "nf4" for 4-bit weights under LoRA (QLoRA; needs CUDA and
    the package bitsandbytes). revision: a commit of a hub model, for hub ids only. pooling: "mean"
    for a text's head that reads the mean over its tokens, as sentence encoders were trained; by
    default what was saved, else what the architecture reads (other programs than the kit do so).
    Returns a Model in evaluation mode on this machine's device.
    Raises SettingError for an unknown task or a stored head of another size than the labels ask
    for, DataError when labels or weights are missing, FetchError when the source is neither known
    nor found. Warns of weights that the network has no place for, and of a stored head whose
    classes have other names.
    """
    if str(source).startswith(mlflow_store.PREFIX):
        folder, version = mlflow_store.version_folder(str(source))
        model = load_model(folder, task, labels=labels, pretrained=pretrained, dtype=dtype,
                           seed=seed, revision=revision, pooling=pooling)
        model.settings["version"] = version
        if model.net.config.name_or_path == str(folder):
            # An adapter that is trained on it finds its base by this, wherever the store lies.
            model.net.config.name_or_path = mlflow_store.PREFIX + version
        return model
    folder, name = _folder(source, revision)
    card = read_card(folder)
    if "adapter" in card:
        return _load_bottlenecks(folder, card, dtype)
    task = task or card.get("task") or _default_task(folder)
    labels = labels if labels is not None else card.get("labels")
    if task not in SPECS:
        raise SettingError(f"task {task!r} does not exist; choose one of {', '.join(TASKS)}.")
    if SPECS[task].labelled:
        labels = _labels(folder, task, labels, card)
    if SPECS[task].labelled and not labels:
        raise DataError(f"task {task!r} needs labels, for example labels=data.labels.")
    if (folder / "adapter_config.json").exists():
        return _load_adapter(folder, task, labels, card, dtype, seed)
    config = _config(folder, task, labels)
    set_pooling(config, pooling, SPECS[task])
    if SPECS[task].next_token and config.is_encoder_decoder:
        raise _no_decoder(config)
    net = _network(folder, config, task, pretrained, dtype, seed, card.get("task"))
    if SPECS[task].next_token and getattr(config, "is_decoder", None) is False:
        if not capabilities.predicts_next(net):  # of kinds that are no decoders by themselves
            raise _no_decoder(config)
    tokenizer = _tokenizer(folder, config)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if net.config.pad_token_id is None:
        net.config.pad_token_id = tokenizer.pad_token_id
    if dtype != "nf4":  # 4-bit weights are placed while they are loaded
        net = net.to(this_machine().device)
    model = Model(net.eval(), tokenizer, task, card.get("name", name),
                  list(labels) if labels else None, {"seed": seed})
    # Saved from a name that can be fetched again, so that an adapter can find its base.
    net.config.name_or_path = name if not Path(name).exists() else str(folder)
    return model


def _folder(source, revision):
    """The local folder of `source`, fetched or converted first where needed, and its name."""
    text, path = str(source), Path(source).expanduser()
    entry = next((entry for entry in catalog.models() if entry.name == text), None)
    if revision and (entry or path.is_dir()):
        raise SettingError(
            f"revision={revision!r} is a commit of a hub model, and {text!r} is "
            f"{'pinned by the catalog' if entry else 'a folder'}; leave it out"
            + (f", or load the hub's {entry.hub!r}." if entry and entry.hub else ".")
        )
    if entry:
        return _catalog_folder(entry), text
    if path.is_dir():
        return path, str(path)
    if text.count("/") == 1 and not text.startswith((".", "~", "/")):
        pinned = next((entry.revision for entry in catalog.models() if entry.hub == text), None)
        return _hub_folder(text, revision or pinned), text
    hint = catalog.nearest(text, [entry.name for entry in catalog.models()])
    raise FetchError(f"model {text!r} is no folder, no hub id (owner/name) and not in the catalog. "
                     f"{hint}")


def _catalog_folder(entry):
    """The folder of a catalog model; GGUF and ONNX are dequantized to safetensors on first use."""
    if entry.format == "safetensors":
        return fetch.model_folder(entry)
    if entry.format == "onnx":
        return fetch.cached_folder(fetch.model_key(entry), partial(onnx.convert_t5, entry))

    def convert(target):
        scratch = target / "source"
        prefix, _, file = entry.member.rpartition("/")
        fetch.extract(entry.archives[0], scratch, prefix=prefix + "/", members=[entry.member])
        options = {"gguf_file": file, "trust_remote_code": False}
        with quiet():
            whole = transformers.GgufConfig(dequantize=True)
            net, found = transformers.AutoModelForCausalLM.from_pretrained(
                scratch, dtype=torch.float32, quantization_config=whole, output_loading_info=True,
                **options)
            check_loaded(net, found, "causal-lm", entry.member)
            tokenizer = transformers.AutoTokenizer.from_pretrained(scratch, **options)
            # The note of how it was read must not travel with plain float32 weights.
            if hasattr(net.config, "quantization_config"):
                del net.config.quantization_config
            net.config.name_or_path = entry.name
            net.save_pretrained(target)
            tokenizer.save_pretrained(target)
        shutil.rmtree(scratch)

    return fetch.cached_folder(fetch.model_key(entry), convert)


def _hub_folder(repository, revision):
    """The folder of a hub model (safetensors only), downloaded on first use to the hub's cache."""
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    options = {"revision": revision, "allow_patterns": patterns}
    try:
        folder = Path(snapshot_download(repository, local_files_only=fetch.offline(), **options))
        if wrong := fetch.hub_damage(folder):
            warnings.warn(f"{folder} was damaged since it was downloaded ({wrong}): it is fetched "
                          "again.", stacklevel=4)
            folder = Path(snapshot_download(repository, force_download=True, **options))
        return folder
    except OSError as error:  # those of the hub and of its cache are, too
        state = "FTKIT_OFFLINE is set" if fetch.offline() else "the hub did not give it"
        raise FetchError(f"hub model {repository!r} is not in the cache and {state}. Check the "
                         "name and the network, give a local folder, or choose a model that `ftkit "
                         "models` lists.") from error


def _labels(folder, task, labels, card):
    """The labels that were asked for, else those of the head that a folder has for the task."""
    if labels is not None:
        given, labels = labels, [] if isinstance(labels, str | int) else list(labels)
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise DataError(f"labels={given!r}: a list of two or more different names was "
                            "expected, for example labels=data.labels.")
    if card or (folder / "adapter_config.json").exists():  # their labels stand elsewhere
        return labels
    config = _read_config(folder)
    head = SPECS[task].auto.removeprefix("AutoModel")
    if not any(name.endswith(head) for name in config.architectures or ()) or config.num_labels < 2:
        return labels
    stored = [config.id2label[i] for i in sorted(config.id2label)]
    named = not all(str(name).startswith("LABEL_") for name in stored)
    if labels and named and len(labels) == len(stored) and [*map(str, labels)] != stored:
        warnings.warn(f"the head that is stored in {folder} answers {', '.join(stored)}, and you "
                      f"call these {', '.join(map(str, labels))}, in this order. Leave labels out "
                      "to keep its own.", stacklevel=3)
    return labels or stored


def _default_task(folder):
    config = _read_config(folder)
    kinds = " ".join(config.architectures or [])
    if config.is_encoder_decoder:
        return "seq2seq-lm"
    return "causal-lm" if "CausalLM" in kinds or "LMHead" in kinds else "encoder"


def _read_config(folder, **options):
    if not (Path(folder) / "config.json").exists():
        raise FetchError(f"{folder} holds no model: it has no config.json. Give the folder that "
                         "save or save_pretrained wrote.")
    try:
        with _read(folder):
            return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False,
                                                           **options)
    except ValueError as error:
        if "does not recognize this architecture" in str(error):
            kind = json.loads((Path(folder) / "config.json").read_text()).get("model_type")
            raise SettingError(f"the model in {folder} is of the kind {kind!r}, which "
                               f"transformers {transformers.__version__} does not "
                               "know; choose another.") from error
        if "custom code" not in str(error):
            raise
        # Without the library's words, which say how to have the code run.
        raise SettingError(f"the model in {folder} comes with code of its own (auto_map in "
                           "config.json), which is never run. Choose a model of a kind that "
                           "transformers itself has.") from None


def _check_safe(folder):
    """Raise SettingError when weights are there as pickle alone: to read one may run any code."""
    folder = Path(folder)
    pickles = [path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind)]
    if pickles and not [*folder.glob("*.safetensors")]:
        raise SettingError(f"the weights in {folder} are a pickle ({pickles[0]}), which may run "
                           "any code when it is read. Get them as model.safetensors from who made "
                           "them, or choose another model.")


def _config(folder, task, labels):
    options = {}
    if SPECS[task].labelled:
        options |= {"id2label": dict(enumerate(labels)),
                    "label2id": {label: i for i, label in enumerate(labels)}}
    elif SPECS[task].own_head:  # one number
        options |= {"num_labels": 1, "problem_type": SPECS[task].problem}
    return _read_config(folder, **options)


def _network(folder, config, task, pretrained, dtype, seed, saved_for=None):
    kind = getattr(transformers, SPECS[task].auto)
    if dtype not in (*FORMATS, "nf4"):
        known = ", ".join((*FORMATS, "nf4"))
        raise SettingError(f"dtype {dtype!r} does not exist; choose one of {known}.")
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        options = _four_bits() if dtype == "nf4" else {"dtype": FORMATS[dtype]}
        try:
            if not pretrained:
                net = kind.from_config(config, trust_remote_code=False, **options)
                return with_pooling(head_apart(net))
            _check_safe(folder)
            with _read(folder):
                net, found = kind.from_pretrained(folder, config=config, use_safetensors=True,
                                                  trust_remote_code=False,
                                                  output_loading_info=True, **options)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            stored = transformers.AutoConfig.from_pretrained(folder).num_labels
            raise SettingError(f"the model in {folder} has a head for {stored} labels, and task "
                               f"{task!r} asks for {config.num_labels} here. Load it with the "
                               "labels it was trained on; or, for a new head on its body, load it "
                               'with task="encoder", save that, and load the saved one with your '
                               "labels.") from error
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise SettingError(f"a {config.model_type} model cannot do task {task!r}; choose "
                               "another of either.") from error
    net = with_pooling(net)
    check_loaded(net, found, task, folder, whole=saved_for == task)
    return net


def _tokenizer(folder, config):
    """The tokenizer of a folder. Where there is none the library makes one of five tokens."""
    with _read(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    expected = getattr(config.get_text_config(), "vocab_size", 0)
    if len(tokenizer) < expected / 2:
        raise FetchError(f"{folder} has no tokenizer that fits: it knows {len(tokenizer):,} "
                         f"tokens, the network {expected:,}. Copy the tokenizer's files there "
                         "(tokenizer.json, tokenizer_config.json and the like) from the model that "
                         "it was trained from.")
    return tokenizer


@contextmanager
def _read(folder):
    """Turn what the libraries raise for a folder that is incomplete or damaged into a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise FetchError(f"{folder} cannot be read as a model: {first}. It needs config.json, "
                         "weights as safetensors and the tokenizer's files, whole and all from one "
                         "source.") from error


def _no_decoder(config):
    return SettingError(f"this {config.model_type} model does not predict a next token from those "
                        "before it, as task 'causal-lm' asks: it reads in both directions, or "
                        'stands behind an encoder. Load it with task="masked-lm" or "seq2seq-lm", '
                        "or take a decoder.")


def _four_bits():
    """Options that load weights in 4 bits, computed with in 16 (Dettmers et al. 2023, "QLoRA")."""
    machine = this_machine()
    if machine.device != "cuda":
        raise SettingError(f'dtype "nf4" needs CUDA and this machine has {machine.device}; load '
                           "float32 and train with LoRA, which leaves the base as it is too.")
    compute = torch.bfloat16 if choose_dtype(machine).value == "bf16" else torch.float16
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                             bnb_4bit_use_double_quant=True,
                                             bnb_4bit_compute_dtype=compute)
    own = torch.cuda.current_device()  # of several processes, each has one of its own
    return {"quantization_config": config, "device_map": {"": own}, "dtype": compute}


def _load_adapter(folder, task, labels, card, dtype, seed):
    import peft

    base_name = peft.PeftConfig.from_pretrained(folder).base_model_name_or_path
    seed = seed if card.get("seed") is None else card["seed"]
    base = load_model(base_name, task, labels=labels, dtype=dtype, seed=seed,
                      pooling=card.get("pooling"))
    with quiet_peft():
        net = peft.PeftModel.from_pretrained(base.net, folder)
    name = card.get("name", base.name)
    return Model(net.eval(), base.tokenizer, task, name, base.labels, base.settings)


def _load_bottlenecks(folder, card, dtype):
    task, labels, seed = card["task"], card["labels"], card["seed"] or 0
    try:
        base = load_model(card["base"], task, labels=labels, dtype=dtype, seed=seed,
                          pooling=card.get("pooling"))
    except FetchError as error:
        raise FetchError(f"the adapter in {folder} stands on {card['base']!r}, which could not be "
                         f"loaded: {error} If the base has moved, load it yourself and give it to "
                         "ft.load_adapter.") from error
    base.name = card["name"]
    base.net.requires_grad_(False)
    return adapters.set_adapter(adapters.load_adapter(base, folder), card["adapter"]["name"])
