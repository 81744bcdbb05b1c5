#!/usr/bin/env bash
# What action.yml runs. It annotates the lines of classes that no longer load old checkpoints, and
# comments on the pull request what changed; a comment that is there is edited.
set -euo pipefail

python=${CKPT_PYTHON:-python}
marker='<!-- ckpt guard -->'

if ! "$python" -m ckpt --version >/dev/null 2>&1; then
    "$python" -m pip install --quiet --disable-pip-version-check "$GITHUB_ACTION_PATH"
fi

words=()
while IFS= read -r word; do
    if [ -n "$word" ]; then words+=("$word"); fi
done <<<"${CKPT_DEFINITIONS:-}"

against=${CKPT_AGAINST:-}
if [ -z "$against" ] && [ -n "${GITHUB_BASE_REF:-}" ]; then
    branch=origin/$GITHUB_BASE_REF
    git fetch --quiet --no-tags --depth=1 origin "+refs/heads/$GITHUB_BASE_REF:refs/remotes/$branch"
    against=git:$branch
fi
if [ -n "$against" ] && [ "$against" != none ]; then
    words+=(--against "$against")
fi

code=0
"$python" -m ckpt guard --format github ${words[@]+"${words[@]}"} || code=$?

# The number of the pull request, from refs/pull/12/merge.
number=$(sed -n 's|^refs/pull/\([0-9]*\)/.*|\1|p' <<<"${GITHUB_REF:-}")
if [ "$code" -gt 1 ] || [ "${CKPT_COMMENT:-true}" != true ] || [ -z "$number" ]; then
    exit "$code"
fi

comments=repos/$GITHUB_REPOSITORY/issues/$number/comments
query=".[] | select(.body | startswith(\"$marker\")) | .id"
earlier=$(gh api --paginate "$comments" --jq "$query" | sed -n 1p) || earlier=
if [ "$code" = 0 ] && [ -z "$earlier" ]; then
    exit 0
fi
body=$(mktemp)
{
    echo "$marker"
    "$python" -m ckpt guard --format markdown ${words[@]+"${words[@]}"} || true
} >"$body"
cat "$body" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
if [ -n "$earlier" ]; then
    send=(--method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$earlier")
else
    send=(--method POST "$comments")
fi
gh api "${send[@]}" --raw-field "body=$(cat "$body")" >/dev/null ||
    echo "::notice title=ckpt guard::no comment: the token may not write to pull requests"
exit "$code"
