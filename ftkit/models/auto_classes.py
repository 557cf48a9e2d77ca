"""The tasks a model can be loaded for: the class of network, its labels, where its head is from."""

AUTO = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "tagging": "AutoModelForTokenClassification",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "choice": "AutoModel",
    "encoder": "AutoModel",
}
TASKS = tuple(AUTO)
LABELLED = ("classification", "tagging")
GENERATING = ("causal-lm", "seq2seq-lm")  # their head was pretrained with the rest
COUNTED = ("classification", "regression", "tagging")  # their head has an output for each label
PROBLEM = {"classification": "single_label_classification", "regression": "regression"}
CARD = "ftkit.json"  # what a saved folder says about itself, beside the weights
