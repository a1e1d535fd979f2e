#!/bin/sh
# Make .venv with the locked dependencies and the `nodrop` command. Quick when nothing has changed.
#
# The virtual environment is always made from nothing: what a lock no longer names must not linger in it. The project
# itself is not installed, as on a platform: an editable install is not possible under --require-hashes.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
checkout=$(pwd)
lock=requirements-dev.txt
stamp=.venv/.set-up-with

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The version of a CPython of 3.11 or newer; fails for anything else, such as a pyenv shim with no Python behind it.
version_of() {
    "$1" -I -c 'import sys
print("%d.%d.%d" % sys.version_info[:3])
sys.exit(sys.version_info < (3, 11) or sys.implementation.name != "cpython")' 2>/dev/null
}

has_venv() { "$1" -I -c 'import ensurepip, venv' 2>/dev/null; }

# What a finished set-up depends on, by hash: the Python version, the place, the lock and this script.
fingerprint() {
    "$1" -I -c 'import hashlib, sys
digest = hashlib.sha256(repr((sys.version_info[:3], sys.argv[1])).encode())
for name in sys.argv[2:]:
    digest.update(open(name, "rb").read())
print(digest.hexdigest())' "$checkout" "$lock" scripts/setup.sh 2>/dev/null
}

is_current() {
    wanted=$(fingerprint "${PYTHON:-.venv/bin/python}") || return 1
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && version_of .venv/bin/python >/dev/null
}

no_venv() {
    fail "Python $(version_of "$1") at $1 comes without its venv and ensurepip modules." \
        "On Debian and Ubuntu: apt-get install python3-venv. Then run this again."
}

# Sets $python. A Python that somebody named is taken or refused, never passed over.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        version_of "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a working CPython of 3.11 or newer."
        python=$(command -v "$PYTHON")
        has_venv "$python" || no_venv "$python"
        return
    fi
    incomplete=
    # A pyenv without the version of `.python-version` has shims that fail; what it has installed works.
    for name in python3.13 python3.12 python3.11 python3.14 python3 \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[1-9]*/bin/python3; do
        python=$(command -v "$name") && version_of "$python" >/dev/null || continue
        if has_venv "$python"; then return; fi
        incomplete=${incomplete:-$python}
    done
    [ -z "$incomplete" ] || no_venv "$incomplete"
    fail "no Python of 3.11 or newer found (tried python3.13, 3.12, 3.11, 3.14, python3)." \
        "Install one, or name it: make setup PYTHON=/where/it/is"
}

# The command from any directory; -P keeps that directory's own `cli` or `core` out of the way.
write_command() {
    cat >.venv/bin/nodrop <<COMMAND
#!/bin/sh
# Written by scripts/setup.sh.
PYTHONPATH='$checkout' exec '$checkout/.venv/bin/python' -P -m cli "\$@"
COMMAND
    chmod +x .venv/bin/nodrop
}

if is_current; then
    say "nothing to do, .venv is up to date (Python $(version_of .venv/bin/python))"
    exit 0
fi
find_python
say "using Python $(version_of "$python") at $python"
say "making .venv"
"$python" -m venv --clear .venv || fail "could not make .venv, see above."
say "installing $(grep -c '==' "$lock") packages, each checked against its hash in $lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --requirement "$lock" ||
    fail "pip could not install them, see above. Nothing else was changed; run this again."
write_command
fingerprint .venv/bin/python >"$stamp"
say "done: .venv/bin/nodrop is there"
