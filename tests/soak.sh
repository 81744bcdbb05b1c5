#!/bin/sh
# Run all tests three times beside eight busy processes, and once in random order: a test that
# depends on luck fails here sooner or later. Takes hours on two cores; less with
# CKPT_TESTS=short.
set -eu
: "${CKPT_TESTS:=all}"
export CKPT_TESTS
busy=
for _ in 1 2 3 4 5 6 7 8; do
    python -c "while True: pass" &
    busy="$busy $!"
done
trap 'kill $busy 2>/dev/null' EXIT INT TERM

failed=0
for round in 1 2 3; do
    echo "== round $round of 3, beside eight busy processes"
    # Three times as many workers as busy processes: on two cores each test has a sixteenth of one.
    CKPT_EXAMPLES=random python -m pytest -q -n 24 --dist worksteal \
        || failed=1
done
kill $busy
echo "== once more, in random order"
python -m pytest -q -n auto --dist worksteal \
    -o addopts="--strict-markers --strict-config --import-mode=importlib" || failed=1
exit $failed
