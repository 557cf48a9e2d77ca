"""How long users wait for a served model when 1, 8 and 32 ask at once, beside plain generation.

`python benchmarks/serving.py --write docs/deployment.md`, or `make bench-serving`. All three
ways answer the same questions with at most the same number of tokens, in turn, in one process; the
table has medians over the rounds, and the share of answers that are the same.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import ftkit as ft  # noqa: E402
from ftkit.batch import notebook as nb  # noqa: E402
from ftkit.batch.report import insert_table, machine  # noqa: E402
from ftkit.display import markdown_table  # noqa: E402

RESULTS = Path(__file__).parent / "serving.json"
MODEL = "smollm2-135m-instruct"
SERVED, ALONE, BATCHED = "served", "generate, one after the other", "ft.generate, one batch"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--model", default=MODEL, help="(%(default)s)")
    parser.add_argument("--write", metavar="FILE", help="put the table into this document")
    options = parser.parse_args()
    model = ft.load_model(options.model)
    rows = ft.load_data("nq-open", n_test=max(options.users), seed=0)["test"]
    turns = [[{"role": "user", "content": f"{question}?"}] for question in rows["question"]]
    with ft.serve(model) as service:
        ways = {SERVED: served(service, options.tokens), ALONE: alone(model, options.tokens),
                BATCHED: batched(model, options.tokens)}
        for way in ways.values():
            way(turns[:1])  # what a first call alone has to do
        rounds = [{f"{users} {name}": timed(way, turns[:users]) for users in options.users
                   for name, way in ways.items()} for _ in range(options.rounds)]
    found = {"date": str(date.today()), "machine": machine(), "model": options.model,
             "tokens": options.tokens, "users": options.users, "rounds": rounds}
    print(text := table(found))
    if options.write:
        nb.write_file(json.dumps(found, indent=1) + "\n", RESULTS)
        document = Path(options.write)
        nb.write_file(insert_table(document.read_text(encoding="utf-8"), text, "serving"), document)


def served(service, tokens):
    """A function from turns to each user's (wait, answer): over HTTP, all at once."""
    def way(turns):
        def one(own):
            start = time.perf_counter()
            answer = service.answer(own, max_new_tokens=tokens)
            return time.perf_counter() - start, answer

        with ThreadPoolExecutor(len(turns)) as users:
            return list(users.map(one, turns))
    return way


def alone(model, tokens):
    """The same by the library's own generate for one after the other, without a server."""
    def way(turns):
        start, found = time.perf_counter(), []
        for own in turns:
            ids = model.tokenizer.apply_chat_template(
                own, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            said = model.net.generate(**ids, max_new_tokens=tokens, do_sample=False,
                                      pad_token_id=model.tokenizer.pad_token_id)
            text = model.tokenizer.decode(said[0, ids["input_ids"].shape[1]:],
                                          skip_special_tokens=True)
            found.append((time.perf_counter() - start, text))
        return found
    return way


def batched(model, tokens):
    """The same in one batch of ft.generate: all are answered when the last is."""
    def way(turns):
        start = time.perf_counter()
        prompts = [model.tokenizer.apply_chat_template(own, tokenize=False,
                                                       add_generation_prompt=True) for own in turns]
        said = ft.generate(model, prompts, max_new_tokens=tokens)
        return [(time.perf_counter() - start, text) for text in said]
    return way


def timed(way, turns):
    """Seconds: the median wait, the longest, and of all together; and the answers."""
    start = time.perf_counter()
    found = way(turns)
    spent = time.perf_counter() - start
    waits = [wait for wait, _ in found]
    return {"median": round(statistics.median(waits), 3), "longest": round(max(waits), 3),
            "requests a second": round(len(turns) / spent, 3),
            "answers": [text.strip() for _, text in found]}


def same(found, users, one, other):
    """The share of answers that two ways have in common, in the first round."""
    first = found["rounds"][0]
    pairs = zip(first[f"{users} {one}"]["answers"], first[f"{users} {other}"]["answers"],
                strict=True)
    return statistics.mean(a == b for a, b in pairs)


def table(found):
    """The table for readers, with the words that say what it is of."""
    def middle(users, name, what):
        return statistics.median(one[f"{users} {name}"][what] for one in found["rounds"])

    rows = [(str(users), name, f"{middle(users, name, 'median'):.2f}",
             f"{middle(users, name, 'longest'):.2f}",
             f"{middle(users, name, 'requests a second'):.2f}")
            for users in found["users"] for name in (SERVED, ALONE, BATCHED)]
    about, most = found["machine"], max(found["users"])
    return "\n\n".join((
        markdown_table(("requests at once", "way", "median wait, s", "longest, s", "a second"),
                       rows),
        f"{found['model']}, {found['tokens']} tokens an answer, medians of {len(found['rounds'])} "
        f"rounds on {about['cores']} cores ({about['system']}), {found['date']}. Of {most} answers "
        f"{same(found, most, SERVED, ALONE):.0%} are the same served and by `generate`, and "
        f"{same(found, most, BATCHED, ALONE):.0%} the same in one batch."))


if __name__ == "__main__":
    main()
