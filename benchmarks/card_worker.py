"""One contender on a card, in a process of its own: it does the works that it is asked for.

    python benchmarks/card_worker.py CONTENDER

reads requests from its input, JSON of "work" (a folder) and "seed" a line, and answers each with a
line "RESULT {json}"; with "profile", a file's name, it looks where the time goes, into that file.
The contender "prepare" takes part in nothing: asked for {"card": true} it says what the card is,
and {"prepare": WORK, "folder": FOLDER, "tiny": false} writes a work.
"""

import gc
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from worker import PREFIX


def main(contender):
    """Answer until the input ends. A failure is a result, too: it says what went wrong."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    import card_common
    import torch

    modules = {"kit": "card_kit", "kit_default": "card_kit", "prepare": "card_works"}
    module = importlib.import_module(modules.get(contender, "card_peers"))
    print("READY", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked.get("card"):
                result = card_common.card()
            elif "prepare" in asked:
                module.prepare(asked["prepare"], Path(asked["folder"]), asked["tiny"])
                result = {"prepared": True}
            else:
                work = card_common.load(asked["work"])
                card_common.Clock.profile = asked.get("profile")
                result = module.contend(contender, work, asked["seed"])
        except ImportError as error:
            traceback.print_exc()
            what = error.name or str(error).split(":")[0]
            result = {"missing": f"not installed here: {what}"}
        except Exception as error:
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}".split("\n")[0][:300]}
        gc.collect()  # nothing is left for the next work
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        print(PREFIX + json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
