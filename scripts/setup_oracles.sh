#!/bin/sh
# Make .oracles/*: other people's libraries that the tests hold nodrop against, and a fuzzer, each in an environment of
# its own, with its own lock, which names all that is installed. Quick when nothing has changed. Needs .venv, which
# `make setup` makes.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
python=.venv/bin/python

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# By hash: the Python version, the place and the lock.
fingerprint() {
    "$python" -I -c 'import hashlib, os, sys
digest = hashlib.sha256(repr((sys.version_info[:3], os.getcwd())).encode())
digest.update(open(sys.argv[1], "rb").read())
print(digest.hexdigest())' "$1"
}

[ -x "$python" ] || fail "there is no .venv yet: make setup"
for lock in tests/oracles/sdks.txt tests/oracles/localstripe.txt tests/oracles/axe.txt tests/fuzz/atheris.txt; do
    name=$(basename "$lock" .txt)
    home=.oracles/$name
    wanted=$(fingerprint "$lock")
    if [ "$(cat "$home/.set-up-with" 2>/dev/null)" = "$wanted" ]; then continue; fi
    printf 'setup: installing %s packages, each checked against its hash in %s\n' "$(grep -c '==' "$lock")" "$lock"
    "$python" -m venv --clear "$home" || fail "could not make $home, see above."
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes \
        --requirement "$lock" || fail "pip could not install $lock, see above. Nothing else was changed; run this again."
    printf '%s\n' "$wanted" >"$home/.set-up-with"
done
