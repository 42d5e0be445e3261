# Sourced by the scripts of tables in this folder, which set `rows`, recipes below recipes/, and where it is not pretrain_gpt.py
# `script`. It starts the rows one after the other on this machine, or sends each to Slurm:
#
#     bash scripts/launch/TABLE.sh --save ROOT [--row NAME]... [--launcher slurm|nodes|node] [--dry-run] FLAG...
#
# FLAG...: flags of training for all rows, such as --data-path PREFIX and --difficulty-path FOLDER; the latter is left out where a
# recipe orders no samples. A row lands in ROOT/NAME and goes on from there. With --launcher slurm SBATCH has the words for sbatch.
root="$(cd "$(dirname "$0")/../.." && pwd)"
script="${script:-pretrain_gpt.py}"
save="" launcher=node dry_run=no chosen=() flags=() difficulty=()
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run) dry_run=yes; shift ;;
    --save | --row | --launcher | --difficulty-path)
        [ $# -gt 1 ] || { echo "error: $1 needs a value" >&2; exit 2; }
        case "$1" in
        --save) save="$2" ;;
        --row) chosen+=("$2") ;;
        --launcher) launcher="$2" ;;
        --difficulty-path) difficulty+=("$1" "$2") ;;
        esac
        shift 2
        ;;
    *) flags+=("$1"); shift ;;
    esac
done
[ -n "$save" ] || { echo "error: give --save ROOT, the folder of all runs" >&2; exit 2; }
for row in "${chosen[@]}"; do
    [[ " ${rows[*]} " == *" $row "* ]] || { echo "error: --row $row: choose of ${rows[*]}" >&2; exit 2; }
done
[ ${#chosen[@]} -eq 0 ] || rows=("${chosen[@]}")
case "$launcher" in
node | nodes) start=(bash "$root/scripts/launch/$launcher.sh") ;;
slurm) read -r -a words <<< "${SBATCH:-}"; start=(sbatch "${words[@]}" "$root/scripts/launch/slurm.sh") ;;
*) echo "error: --launcher $launcher: choose slurm, nodes or node" >&2; exit 2 ;;
esac
export SCRIPT="$script" MEGATRON_ROOT="$root"
for row in "${rows[@]}"; do
    order=()
    case "$row" in gpt2_350m_ptb/*) ;; *voc* | *seqreo* | *composed*) order=("${difficulty[@]}") ;; esac
    command=("${start[@]}" --config "$root/recipes/$row.yaml" --save "$save/$row" --load "$save/$row" "${order[@]}" "${flags[@]}")
    echo "SCRIPT=$script ${command[*]}"
    [ "$dry_run" = yes ] || "${command[@]}"
done
