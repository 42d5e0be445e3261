#!/usr/bin/env bash
# Install what the tests need into .venv and run them: bash scripts/test.sh [pytest arguments]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # where sh has started it
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
install_environment test,dev
doing="the tests"
export TOKENIZERS_PARALLELISM=false # its threads do not survive the fork of the ranks
export HF_HUB_OFFLINE=1
cores=$(PYTHONPATH=. python -c "from megatron.base.cores import usable_cores; print(usable_cores())")
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # more threads wait for each other where the machine is busy
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
echo "+ ruff check . && ruff format --check . && mypy"
ruff check .
ruff format --check .
mypy
echo "+ pytest"
exec python -m pytest -n "$cores" --dist worksteal
