#!/bin/sh
# Three refactorings of one class, as the history of a git repository; none breaks a checkpoint.
#
# sh play.sh FOLDER  makes the repository there: net.py, its migrations, and a checkpoint of each
# form of the class. Each command is printed before it runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
git init -q
git config user.name "The example"
git config user.email example@example.org

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

save() {
    python -c "
import torch
from net import Net
torch.manual_seed($1)
torch.save(Net().state_dict(), '$1.pt')"
}

say() { printf '\n== %s\n' "$1"; }

say "The first form of the class, and a checkpoint of it"
cp "$here/net_1.py" net.py
save 1
git add net.py 1.pt && git commit -qm "Add the class"

say "fc_in becomes embed, fc_out head"
cp "$here/net_2.py" net.py
run ckpt migrate new net.py:Net --from 1.pt -m "embed and head" \
    --rule '^fc_in->embed' --rule '^fc_out->head'
save 2
git add . && git commit -qm "Name the outer layers"

say "The fused projection becomes three layers"
cp "$here/net_3.py" net.py
run ckpt migrate new net.py:Net --from 2.pt -m "split qkv"
save 3
git add . && git commit -qm "Split the projection"

say "The blocks move into an encoder, and the head is transposed"
cp "$here/net_4.py" net.py
run ckpt migrate new net.py:Net --from 3.pt -m "an encoder" --rules "$here/to_4.toml"
save 4
git add . && git commit -qm "Make an encoder"

say "Every checkpoint loads into the class of today"
run ckpt migrate ls net.py:Net
run ckpt migrate check net.py:Net
for old in 1 2 3; do
    run ckpt migrate run $old.pt --to net.py:Net -o $old.today.pt
done
