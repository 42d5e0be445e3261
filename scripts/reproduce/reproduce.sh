# Sourced by the scripts of tables in this folder, which set `table`. Takes the flags of tools/reproduce_table.py:
#
#     bash scripts/reproduce/TABLE.sh [--dry-run] [--rows NAME ...] [--seeds 1-3] [--folder runs/reproduce] ...
if [ -z "${table:-}" ]; then
    echo "error: $0 is a part of others; run one of scripts/reproduce/table_*.sh, or curve_cost_quality.sh" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
install_environment ""
trap - INT TERM HUP # the tool stops its runs itself
exec python tools/reproduce_table.py --table "scripts/reproduce/$table.yaml" "$@"
