#!/bin/sh
# Build the wheel, install it into an empty environment, and use it away from the sources.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m build --wheel --outdir "$folder" "$root" >"$folder/build.log" 2>&1 || {
    cat "$folder/build.log"
    exit 1
}
python -m venv "$folder/venv"
PATH="$folder/venv/bin:$PATH"
pip install --disable-pip-version-check -c "$root/constraints.txt" "$folder"/*.whl \
    >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log"
    exit 1
}
cd "$folder"
ckpt --version
ckpt train --register --dataset digits --epochs 1 --precision fp32 -q
ckpt rename v1 --rule 'conv->embed' --check ckpt.models.mnist_embed:Net
ckpt export v2 -o new.safetensors
ckpt verify
