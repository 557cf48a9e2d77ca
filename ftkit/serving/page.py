"""The page beside a served model on which people ask it and say what they think of its answers."""

import base64
import hashlib
import html

# The token stands behind the # of the address, which a browser sends to no server, and is taken
# out of the address at once. Answers are shown as text, so that none of them can be a program.
SCRIPT = """
const at = id => document.getElementById(id);
const token = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
let asked = null;
async function post(path, body) {
  const reply = await fetch(path, {method: "POST", body: JSON.stringify(body), headers: {
    "Content-Type": "application/json", "Authorization": "Bearer " + token}});
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error.message);
  return found;
}
async function tried(work) {
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  at("state").textContent = "…";
  try { at("state").textContent = await work(); }
  catch (error) { at("state").textContent = error.message; }
  for (const button of document.querySelectorAll("button")) button.disabled = false;
}
at("ask").onclick = () => tried(async () => {
  const system = at("system").value.trim();
  const turns = [{role: "user", content: at("question").value}];
  if (system) turns.unshift({role: "system", content: system});
  at("opinion").hidden = true;
  const found = await post("/v1/chat/completions", {messages: turns});
  asked = {messages: turns, answer: found.choices[0].message.content};
  at("answer").textContent = at("correction").value = asked.answer;
  at("opinion").hidden = false;
  return "";
});
const send = opinion => tried(async () => {
  await post("/v1/feedback", {...asked, ...opinion});
  at("opinion").hidden = true;
  return "Kept. Thank you.";
});
at("up").onclick = () => send({thumb: "up"});
at("down").onclick = () => send({thumb: "down"});
at("correct").onclick = () => send({thumb: "down", correction: at("correction").value});
"""
STYLE = """
body { font: 1rem/1.5 sans-serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem }
input, textarea { width: 100%; box-sizing: border-box; font: inherit }
#answer { white-space: pre-wrap; border-left: 3px solid #888; padding-left: 1rem }
"""
BODY = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>{style}</style><h1>{name}</h1>
<p><label>Instructions to the model, if it was trained with any<input id="system"></label></p>
<p><label>Your message<textarea id="question" rows="3"></textarea></label></p>
<p><button id="ask">Ask</button> <span id="state" role="status"></span></p>
<section id="opinion" hidden><p id="answer"></p>
<p><button id="up">Good</button> <button id="down">Not good</button></p>
<p><label>As it should have been<textarea id="correction" rows="6"></textarea></label></p>
<p><button id="correct">Send the correction</button></p></section>
<script>{script}</script></html>"""


def _source(text):
    """What a policy calls an inline script or style by, so that no other one is run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = [(b"content-type", b"text/html; charset=utf-8"), (b"x-content-type-options", b"nosniff"),
           (b"referrer-policy", b"no-referrer"), (b"cache-control", b"no-store"),
           (b"content-security-policy", (
               f"default-src 'none'; script-src {_source(SCRIPT)}; style-src {_source(STYLE)}; "
               "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
           ).encode())]


def page(name: str) -> bytes:
    """The page for a model of that name, as HTML."""
    return BODY.format(name=html.escape(name), style=STYLE, script=SCRIPT).encode()
