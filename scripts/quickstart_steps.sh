# Sourced by the quickstarts: reads their words, takes the lock of the folder, and has the functions that they share. They set
# `results`, the folder for all corpora, `usual_tokens`, the length of a run, `entry`, the training command, and, before they train
# and report, `run_flags`, `tokenizer` and `sample`.
clean=no
dry_run=no
corpus=()
for argument in "$@"; do
    case "$argument" in
    --clean) clean=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "error: unknown flag $argument; known are --clean, --dry-run and --help" >&2; exit 2 ;;
    *)
        [ -e "$argument" ] || { echo "error: $argument does not exist; give a .jsonl or .txt file, or a folder of them" >&2; exit 2; }
        # a link keeps its name, which tells the kind of file
        if [ -d "$argument" ]; then argument=$(cd -- "$argument" && pwd); fi
        case "$argument" in /*) ;; *) argument="$PWD/$argument" ;; esac
        corpus+=("$argument")
        ;;
    esac
done

tokens="${QUICKSTART_TOKENS:-$usual_tokens}"
tokens="${tokens//_/}"
case "$tokens" in "" | *[!0-9]* | 0* | ????????????????*)
    echo "error: QUICKSTART_TOKENS=$QUICKSTART_TOKENS must be a whole number of tokens, such as 80000" >&2
    exit 2
    ;;
esac

cd "$(dirname "$0")/.."
. scripts/environment.sh
[ "$dry_run" = yes ] || install_environment ""
doing="the look at the corpus"

# Print words as they can be pasted into a shell.
quoted() {
    local word
    for word in "$@"; do
        case "$word" in
        "" | *[!A-Za-z0-9_./:=,+-]*) printf " '%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
}

# A corpus is told by its paths and what the files hold, so that results of two never come into one folder.
run="$results/this_machine"
stamp=$(cat "scripts/$(basename "$0")" scripts/quickstart_steps.sh scripts/quickstart_gpt.sh | cksum)
if [ ${#corpus[@]} -gt 0 ]; then
    for argument in "${corpus[@]}"; do
        if [ -d "$argument" ] && [[ "$(pwd -P)/$results/" == "$(cd -P -- "$argument" && pwd)"/* ]]; then
            echo "error: $argument holds $results, so results would become part of the corpus; give a folder of texts" >&2
            exit 2
        fi
    done
    told=$({ printf '%s\n' "${corpus[@]}"; find -L "${corpus[@]}" -type f -exec cksum {} + 2> /dev/null | sort; } | cksum || true)
    stamp="$stamp $told"
    name=$(basename "${corpus[0]}")
    name=$(printf %s "${name%%.*}" | LC_ALL=C tr -c 'A-Za-z0-9_-' _ | cut -c 1-40)
    run="$results/${name:-corpus}-${told%% *}"
    if [ ! -e "$run" ]; then
        for other in "${run%-*}"-*; do
            case "${other#"${run%-*}"-}" in *[!0-9]*) ;; *) echo "note: this is another corpus than that of $other, or it has changed" ;; esac
        done
    fi
fi
# The lock is held by all that the steps start, too.
if [ "$dry_run" = no ]; then
    mkdir -p "$run/steps"
    exec 9> "$run/.lock"
    python -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)" 2> /dev/null || {
        echo "error: another quickstart is writing to $run; wait for it, or stop it" >&2
        exit 2
    }
    [ "$clean" = no ] || rm -f "$run"/steps/*
    echo "Everything goes to $run"
fi
began=$(date +%s)

# has_finished NAME: whether the step has finished with these words, and all that it wrote is still there.
has_finished() {
    local line
    [ "$(head -n 1 "$run/steps/$1.done" 2> /dev/null)" = "$stamp" ] || return 1
    while read -r line; do
        [ -e "$line" ] || { echo "= $1: $line is missing, so this is done again"; rm -f "$run/steps/$1".*; return 1; }
    done < <(tail -n +2 "$run/steps/$1.done")
}

# last_step_of RUN_JSON: of the whole run, as checkpoints are named.
last_step_of() {
    python -c 'import json, sys; print("{:07}".format(json.load(open(sys.argv[1]))["steps"]))' "$1" 2> /dev/null || true
}

# make_room OUTPUTS: what an earlier attempt left is removed; but hours of training are kept beside, unless --clean asks for all anew.
make_room() {
    local kept
    if [ "$clean" = no ] && compgen -G "$1/iter_*" > /dev/null; then
        kept="$1.until-$(date +%Y%m%d-%H%M%S)"
        mv "$1" "$kept"
        echo "note: the run that was here is kept in $kept"
    else
        # shellcheck disable=SC2086
        rm -rf $1
    fi
}

# step NAME "OUTPUTS" COMMAND...: run a command unless it has finished before, on the same inputs, with the same words. Only
# training goes on from what an earlier attempt left.
step() {
    local name="$1" outputs="$2" status=0
    shift 2
    stamp=$(echo "$stamp $*" | cksum)
    if [ "$dry_run" = yes ]; then
        quoted "$@" | cut -c 2-
        echo
        return
    fi
    if has_finished "$name"; then
        echo "= $name: done before"
        return
    fi
    if [[ "$name" != train-* ]] || [ "$(cat "$run/steps/$name.begun" 2> /dev/null)" != "$stamp" ]; then
        make_room "$outputs"
        rm -f "$run/steps/$name.done"
    fi
    echo "$stamp" > "$run/steps/$name.begun"
    doing="the step $name" trains_with="$outputs/run.json" trains_since="$run/steps/$name.begun"
    printf '\n+%s\n' "$(quoted "$@")"
    watched "$@" || status=$?
    case "$status" in
    0) ;;
    130 | 143) stopped="$status"; end_stopped ;;
    *)
        printf '\nThe step %s failed, for the reason told above; once that is mended, the same command goes on with it.\n' "$name" >&2
        exit "$status"
        ;;
    esac
    # Training that was stopped past this script has saved and ended well, but before its last step.
    if [[ "$name" = train-* ]] && ! compgen -G "$outputs/iter_$(last_step_of "$outputs/run.json")" > /dev/null; then
        stopped=143
        end_stopped
    fi
    # shellcheck disable=SC2086
    { echo "$stamp"; [ -z "$outputs" ] || find $outputs -type f; } > "$run/steps/$name.done.new"
    mv "$run/steps/$name.done.new" "$run/steps/$name.done"
}

# steps_of N: what is N steps of 800,000 tokens, for this many; at least 1.
steps_of() {
    local steps=$((($1 * tokens + 400000) / 800000))
    echo $((steps > 0 ? steps : 1))
}

# train NAME FLAG...: on two data-parallel ranks. A killed run goes on.
train() {
    local name="$1"
    shift
    export OMP_NUM_THREADS=1 # a thread a rank; more wait for each other where the machine does other work, too
    step "train-$name" "$run/$name" torchrun --standalone --nproc-per-node 2 "$entry" "${run_flags[@]}" "$@" \
        --save "$run/$name" --load "$run/$name" --tensorboard-dir "$run/$name/tensorboard"
}

# evaluate NAME: on held-out text.
evaluate() {
    step "evaluate-$1" "$run/$1.json" \
        python tools/evaluate.py --load "$run/$1" "${tokenizer[@]}" --splits valid test --output "$run/$1.json"
}

# report TITLE NAME...: these runs side by side, and where to look.
report() {
    local title="$1" name runs=() evaluations=()
    shift
    for name in "$@"; do
        runs+=("$name=$run/$name")
        evaluations+=("$name=$run/$name.json")
    done
    step report "$run/report.html $run/report_files" \
        python tools/report.py --runs "${runs[@]}" --difficulty-path "$run/difficulty" --evaluation "${evaluations[@]}" \
        "${sample[@]}" --title "$title" --output "$run/report.html"
    [ "$dry_run" = no ] || exit 0
    echo
    echo "Finished in $(($(date +%s) - began)) s. Look at:"
}
