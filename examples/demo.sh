#!/bin/sh
# The main job from end to end, in a scratch folder. Each command is printed before it runs.
set -eu
examples=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ -n "${CKPT_DATA:-}" ]; then
    CKPT_DATA=$(cd "$CKPT_DATA" && pwd)
    export CKPT_DATA
fi
unset CKPT_REGISTRY
export CKPT_PAGER=  # nobody waits at a pager
cp "$examples/score.py" "$scratch"
cd "$scratch"

say() { printf '\n== %s\n' "$1"; }

run() {
    printf '\n$'
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=@%+,-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

# Score REF in DEFINITION, and fail unless the answer is the same as that of v1.
score() {
    run python score.py "$1" "$2" | tee answer
    grep right: answer >found
    [ -e expected ] || cp found expected
    cmp -s found expected || { echo "not the same as v1" >&2; exit 1; }
}

say "Train with gradient accumulation, in 16 bits if that is faster here; the weights become v1"
run ckpt train --register --epochs 2 --batch-size 32 --accumulate 2 --precision auto

say "The class now says embed1, embed2 where v1 has conv1, conv2: v1 no longer loads"
run ckpt diff v1 ckpt.models.mnist_embed:Net
run ckpt rename v1 --rule 'conv->embed' --check ckpt.models.mnist_embed:Net
run ckpt diff v1 v2
run ckpt ls

say "v2 in the renamed class gives the answers of v1, to the last digit"
score v1 ckpt.models.mnist_cnn:Net
score v2 ckpt.models.mnist_embed:Net
echo "the same"

say "The same for a plain file that no registry knows"
run ckpt export v1 -o old.pt
run ckpt diff old.pt ckpt.models.mnist_embed:Net
run ckpt rename old.pt --rule 'conv->embed' --check ckpt.models.mnist_embed:Net
score old.renamed.pt ckpt.models.mnist_embed:Net
echo "the same"

say "Nothing is damaged"
run ckpt verify
