# Sourced by the scripts of tables in this folder, which set `table`. Takes the flags of tools/reproduce_table.py:
#
#     bash scripts/reproduce/TABLE.sh [--dry-run] [--rows NAME ...] [--seeds 1-3] [--folder runs/reproduce] ...
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh
install_environment ""
trap - INT TERM HUP # the tool stops its runs itself
exec python tools/reproduce_table.py --table "scripts/reproduce/$table.yaml" "$@"
