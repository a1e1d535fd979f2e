#!/bin/sh
# Compare the locks with the database of known vulnerabilities, by pip-audit. Exit code 1: there are some. 0: there are
# none, or it could not be found out; then the last line begins with "not audited".
set -u

PIP_AUDIT=${PIP_AUDIT:-pip-audit}
command -v "$PIP_AUDIT" >/dev/null || {
	echo "not audited: there is no pip-audit; pip install pip-audit, or PIP_AUDIT=/where/it/is"
	exit 0
}

report=$(mktemp)
trap 'rm -f "$report"' EXIT
for lock in requirements.txt requirements-dev.txt; do
	# The report is written only when the database has answered for every package.
	: >"$report"
	"$PIP_AUDIT" --requirement "$lock" --disable-pip --require-hashes --progress-spinner off \
		--format columns --output "$report" --timeout 10
	code=$?
	if [ "$code" -eq 0 ]; then
		echo "$lock: no known vulnerabilities"
	elif [ -s "$report" ]; then
		cat "$report"
		exit 1
	else
		echo "not audited: pip-audit could not compare $lock; its message is above"
		exit 0
	fi
done
