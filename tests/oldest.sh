#!/bin/sh
# Install the wheel beside the oldest torch that it supports, and run the tests of definitions.
# TORCH names another version, PIP_EXTRA_INDEX_URL an index with builds for CPUs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
. "$root/tests/build_wheel.sh"
python -m venv "$folder/venv"
PATH="$folder/venv/bin:$PATH"
pip install --quiet --disable-pip-version-check "torch==${TORCH:-2.4.*}" "numpy<2" "$folder"/*.whl \
    safetensors pytest pytest-xdist hypothesis
cp -r "$root/tests" "$root/pyproject.toml" "$folder"
cd "$folder"
python -c "import torch; print('torch', torch.__version__)"
# Its `torch.load` warns of a default that has changed, its DTensor of CPUs; it has no public
# `fully_shard`, and cannot save uint32. There is no torchvision.
python -m pytest -n 2 -q -W ignore::FutureWarning -W ignore:DTensor:UserWarning \
    -k 'not fully_sharded and not torchvision and not ref_that_finds and not like_the_file_of_torch' \
    tests/test_definitions.py tests/test_in_memory.py tests/migrate/test_hook.py tests/cli/test_migrate.py tests/prove \
    tests/oracles/test_fits.py
