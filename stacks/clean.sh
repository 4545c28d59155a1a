#!/usr/bin/env bash
# `make clean`, `make clean-all`: delete what the project has generated in the checkout and in LANDSLIDE_HOME.
#
#     stacks/clean.sh          the environment, caches and pulled data: they come back by themselves
#     stacks/clean.sh --all    also runs, models and unfinished trainings, after asking
set -euo pipefail
shopt -s nullglob dotglob
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home="${LANDSLIDE_HOME:-$PWD/.landslide}"
caches=("$home"/{cache,demo-scene,dvc,matplotlib} "$home"/data/{*.dir,.pull-*})
records=(checkpoints mlartifacts mlflow.db open_runs reports reproductions retraining.log zenml)

if [[ -n "$(ls -A -- "$home" 2>/dev/null)" && ! -e "$home/zenml/.stack-registered" ]] || [[ "$home" -ef . ]]; then
    echo "Error: LANDSLIDE_HOME is $home, a folder that \`make setup\` has not set up. Nothing is deleted." >&2
    echo "  -> Correct LANDSLIDE_HOME. If it is the right folder, run \`make setup\` first." >&2
    exit 1
fi

found() { for name in "$@"; do if [[ -e "$home/$name" ]]; then echo "$home/$name"; fi; done; }

if [[ "${1:-}" == --all ]]; then
    echo "This deletes .venv, caches, and these runs, models and unfinished trainings, which nothing brings back:"
    found "${records[@]}" | xargs --no-run-if-empty --delimiter '\n' du -sh --
    read -r -p "Type yes to delete them: " answer || true
    if [[ "${answer:-}" != yes ]]; then
        echo "Error: not confirmed. Nothing is deleted." >&2
        exit 1
    fi
fi

rm -rf -- .venv "${caches[@]}"
rmdir -- "$home/data" 2>/dev/null || true
if [[ "${1:-}" == --all ]]; then
    rm -rf -- "$home"/*.lock "$home"/*.lock.holder "${records[@]/#/$home/}"  # zenml/ last: it makes this a home
    git worktree prune 2>/dev/null || true                                   # those of reproductions/
    rmdir -- "$home" 2>/dev/null || true
fi
if [[ -n "$(ls -A -- "$home" 2>/dev/null)" ]]; then
    echo "Left in $home: $(ls -A -- "$home" | paste -sd ' ')"
fi
