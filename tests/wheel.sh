#!/bin/sh
# Build wheel and sdist, install the wheel into an empty environment, and use it away from the
# sources; run tests of the sdist.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
chmod 755 "$folder" # tests of a shared folder run Python from here as other users
trap 'rm -rf "$folder"' EXIT
. "$root/tests/build_wheel.sh"
install() {
    pip install --disable-pip-version-check -c "$root/constraints.txt" "$@" \
        >"$folder/pip.log" 2>&1 || {
        cat "$folder/pip.log"
        exit 1
    }
}
python "$root/tests/wheel_files.py" "$folder"
python -m venv --without-pip "$folder/empty"
python -m venv "$folder/venv"
PATH="$folder/venv/bin:$PATH"
wheel=$(echo "$folder"/*.whl)
cd "$folder"

install --target "$folder/core" "$wheel"
echo "the core takes $(du -sm core | cut -f 1) MB, its wheel $(du -k "$wheel" | cut -f 1) kB"
[ "$(du -sm core | cut -f 1)" -le 20 ]
# With the newest packages, then with the oldest ones that pyproject.toml allows.
core() {
    echo "\$ ckpt $*"
    PYTHONPATH="$folder/core" "$folder/empty/bin/python" -m ckpt "$@"
}
for kind in pt safetensors; do
    core show "old.$kind" >/dev/null
    core rename "old.$kind" --rule 'conv->embed' -o "new.$kind" -q
    core diff "old.$kind" "new.$kind"
    core register "new.$kind" --name "$kind"
    core export "$kind:v1" -o "back.$kind"
    cmp "new.$kind" "back.$kind"
done
core rename pt:v1 --rule 'embed->conv'
core verify
if core train; then exit 1; fi

install uv
rm -r core
uv pip install --quiet --target core --resolution lowest "$wheel"
core rename old.pt --rule 'conv->layer' -o oldest.pt -q
core ls
core show old.safetensors >/dev/null

install "$wheel[train]"
mkdir trained
cd trained
ckpt --version
ckpt train --register --dataset digits --epochs 1 --precision fp32 -q
ckpt rename mnist-cnn:v1 --rule 'conv->embed' --check ckpt.models.mnist_embed:Net
ckpt export mnist-cnn:v2 -o new.safetensors --card
ckpt site -o site
ckpt verify

cd "$folder"
tar -xzf "$folder"/*.tar.gz
cd ckpt_registry-*/
install -e '.[dev]'
python -m pytest -q -n auto tests/rules tests/compare tests/registry tests/test_refs.py
