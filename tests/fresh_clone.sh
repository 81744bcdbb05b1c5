#!/bin/sh
# What a stranger does first: clone into an empty folder, `make demo`, `make test`.
#
# No data, and nothing of the caller's environment that ckpt reads. The set-up takes packages from
# the package index; as root on Linux, what follows has no network, no strace and no root.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset CKPT_DATA CKPT_REGISTRY CKPT_TESTS CKPT_DEBUG CI MAKEFLAGS MAKELEVEL PYTHONDONTWRITEBYTECODE
export XDG_CACHE_HOME="$folder/cache"
git clone --quiet "$here" "$folder/ckpt"
cd "$folder/ckpt"

# Run a command without network, strace and root, where this system lets us take them away.
bare() {
    if [ "$(id -u)" = 0 ] && unshare --mount --net true 2>/dev/null; then
        unshare --mount --net sh -c '
            ip link set lo up
            for program in strace faketime; do
                path=$(command -v $program) && mount --bind /dev/null "$path"
            done
            exec unshare --user --map-user=1000 --map-group=1000 "$@"' bare "$@"
    else
        "$@"
    fi
}

fail() {
    echo "fresh clone: $1" >&2
    exit 1
}

echo "== make demo"
make .venv/.ready 2>&1 | tee setup.txt
[ "$(wc -l <setup.txt)" -le 2 ] || fail "the set-up is not quiet"
bare make demo 2>&1 | tee demo.txt
scores=$(grep -c ' right: accuracy ' demo.txt) || true
[ "$scores" -eq 3 ] || fail "the demo printed $scores scores instead of 3: v1, v2 and the file"
[ "$(grep ' right: accuracy ' demo.txt | sort -u | wc -l)" -eq 1 ] || fail "the scores differ"
tail -n 1 demo.txt | grep -q 'all good' || fail "the demo's registry does not verify"

echo "== make demo once more"
bare make demo >again.txt 2>&1
! grep -q 'setting up' again.txt || fail "the second demo sets up again"
rm setup.txt demo.txt again.txt

echo "== make test"
bare make test
[ -z "$(git status --porcelain)" ] || fail "the commands left files: $(git status --porcelain)"
