#!/bin/sh
# Create a run's export in Ollama and put its golden prompts to it, by hand:
#
#     scripts/check_ollama.sh outputs/direct/latest [NAME]
#
# It needs ollama, curl and python3 (for JSON alone), and nothing of Slimtune, so that it is a second opinion on
# `slimtune ollama create`, and runs where only the export was copied to. REPLACE=1 replaces a model of
# that name; OLLAMA_HOST and SLIMTUNE_OLLAMA mean what they mean there.
#
# Exit code: 0 it answers as the merged model does, 1 it does not, 2 no Ollama or no whole export.
set -eu
LC_ALL=C # for the ranges in the patterns below
export LC_ALL

fail() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '    -> %s\n' "$2" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "how to use it: $0 RUN [NAME]" "RUN is an exported run's folder"
run=$1
for file in manifest.json export/Modelfile export/golden.jsonl; do
    [ -f "$run/$file" ] || fail "$run/$file is not there" "export the run again: slimtune export RUN --fresh"
done

# ---- Ollama: program, server, versions ----------------------------------------------------------------------------

for tool in curl python3; do
    command -v "$tool" >/dev/null || fail "the program $tool is not on PATH" "install it"
done
ollama=$(command -v "${SLIMTUNE_OLLAMA:-ollama}") ||
    fail "the program ollama is not on PATH" "install Ollama (https://ollama.com/download), or name it in SLIMTUNE_OLLAMA"
case $ollama in
*/*) ollama=$(cd "$(dirname "$ollama")" && pwd)/$(basename "$ollama") ;; # it is started in another folder
esac

host=${OLLAMA_HOST:-127.0.0.1:11434}
case $host in
http://* | https://*) url=${host%/} ;;
:*) url=http://127.0.0.1$host ;;
\[*\]) url=http://$host:11434 ;;
\[*) url=http://$host ;;
*:*:*) url=http://[$host]:11434 ;;
*:*) url=http://$host ;;
*) url=http://$host:11434 ;;
esac

ask() {
    curl --silent --show-error --noproxy "localhost,127.0.0.1,::1,${NO_PROXY:-${no_proxy:-}}" "$@"
}

version=$(ask --fail --max-time 10 "$url/api/version") ||
    fail "no Ollama server answers at $url" "start it with  ollama serve  (or Ollama's app), or say in OLLAMA_HOST where it is"
printf 'server   %s at %s\n' "$version" "$url"
printf 'program  %s\n' "$("$ollama" --version 2>&1 | head -n 1)"

# ---- the model ----------------------------------------------------------------------------------------------------

of_the_recipe() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)["export"]["ollama_name"])' <"$run/manifest.json" 2>/dev/null
}
name=${2:-$(of_the_recipe)} ||
    fail "$run is not exported, or its manifest is broken" "slimtune export RUN"
case $name in
'' | [!a-z0-9]* | *[!a-z0-9._-]*) fail "'$name' cannot be a model's name" "lower-case letters, digits, '.', '_' and '-'" ;;
esac
gguf=$(sed -n 's/^FROM \.\///p' "$run/export/Modelfile")
case $gguf in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) fail "the Modelfile does not build on a GGUF of its folder" "export again with --fresh" ;;
esac
[ -f "$run/export/$gguf" ] || fail "$run/export/$gguf is not there" "export again with --fresh"

there=$(ask --max-time 60 --output /dev/null --write-out '%{http_code}' --data "{\"model\": \"$name\"}" "$url/api/show")
if [ "$there" = 200 ]; then
    [ "${REPLACE:-}" = 1 ] || fail "Ollama has a model '$name' already" "REPLACE=1 replaces it; a second argument gives another name"
    printf "the model '%s' that is there is replaced\n" "$name"
fi
(cd "$run/export" && "$ollama" create "$name" -f Modelfile) || fail "ollama create $name failed" "what it said is above"

# ---- the golden prompts, with `think` unset, true and false ---------------------------------------------------------

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

python3 -c '
import json, pathlib, sys
golden, name, work = sys.argv[1:]
rows = [json.loads(line) for line in open(golden, encoding="utf-8") if line.strip()]
if not rows:
    sys.exit(golden + " holds no prompt")
for number, row in enumerate(rows):
    options = {"temperature": 0, "seed": 0, "num_predict": row["max_new_tokens"]}
    body = {"model": name, "messages": row["messages"], "stream": False, "options": options}
    for think, more in (("unset", {}), ("true", {"think": True}), ("false", {"think": False})):
        path = pathlib.Path(work, f"{number:04}.{think}.request")
        path.write_text(json.dumps({**body, **more}), encoding="utf-8")
' "$run/export/golden.jsonl" "$name" "$work" || fail "the golden prompts cannot be read" "export again with --fresh"

for request in "$work"/*.request; do
    ask --max-time 900 --output "${request%.request}.reply" --header 'Content-Type: application/json' \
        --data-binary "@$request" "$url/api/chat" || fail "the server gives no answer" "see Ollama's log"
done

# A reply is equal where its thought and its answer are, surrounding white space aside, and where it ended by itself if
# the merged model's did. Needed are as many as llama.cpp answered alike when the GGUF was compared (parity.json).
python3 -c '
import json, pathlib, sys

golden, parity, gguf, work = sys.argv[1:]


def bare(text):
    return text.strip().rstrip("\ufffd").rstrip()


def parts(text, cut):
    before, closed, after = text.partition("</think>")
    before = before.strip()
    opened = before.startswith("<think>")
    before = before[len("<think>") :] if opened else before
    if closed or opened or cut:
        return bare(before), bare(after)
    return "", bare(text)


rows = [json.loads(line) for line in open(golden, encoding="utf-8") if line.strip()]
needed = len(rows)
if pathlib.Path(parity).is_file():
    check = (json.load(open(parity, encoding="utf-8")).get("files") or {}).get(gguf)
    if check and check["prompts"]:
        needed = -(-len(rows) * check["answers_equal"] // check["prompts"])
good = True
for think in ("unset", "true", "false"):
    equal = refused = past_end = 0
    first = ""
    for number, row in enumerate(rows):
        reply = json.loads(pathlib.Path(work, f"{number:04}.{think}.reply").read_text(encoding="utf-8"))
        if "does not support thinking" in reply.get("error", ""):
            refused += 1
            continue
        if "message" not in reply:
            sys.stderr.write(f"error: no reply: {reply}\n")
            sys.exit(2)
        thought, content = reply["message"].get("thinking", ""), reply["message"].get("content", "")
        got = (bare(thought), bare(content)) if thought else parts(content, False)
        wanted = parts(row["answer"], row["thinking"] and not row["ended"])
        long = row["ended"] and reply.get("done_reason") == "length"
        past_end += long
        if got == wanted and not long:
            equal += 1
        elif not first:
            first = "{}: {} expected, {} there".format(row["id"], wanted, got)
    compared = not (rows[0]["thinking"] and think == "false")
    right = refused if think == "true" and not rows[0]["thinking"] else 0
    passes = not compared or equal + right >= needed
    good = good and passes
    line = f"think {think:<6} {equal} of {len(rows)} equal" if compared else f"think {think:<6} another prompt, not compared"
    if refused:
        line += f", {refused} refused" + (" as it should be" if right else "")
    if past_end:
        line += f", {past_end} past the end of the turn: a stop is missing"
    if not passes:
        line += f" -- {needed} must be equal; {first}"
    print(line)
sys.exit(0 if good else 1)
' "$run/export/golden.jsonl" "$run/export/parity.json" "$gguf" "$work"
