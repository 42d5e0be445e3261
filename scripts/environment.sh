# Sourced by the other scripts: makes .venv and installs the project with the extras given, as constraints.txt says.
# PYTHON names another interpreter; SKIP_INSTALL=1 takes the environment as it is, for containers and the like.
# Ctrl-C (or SIGTERM, SIGHUP) ends what is being done and leaves no process behind.
doing="the start"
job=""
signal=""
stopped=""
trains_with="" # a file that training writes as it begins,
trains_since="" # and one that is older then
trap 'stop_for INT 130' INT
trap 'stop_for TERM 143' TERM
trap 'stop_for TERM 129' HUP
exec 8>&2

# stop_for SIGNAL STATUS: end with the job; without a job, at once.
stop_for() {
    signal="$1" stopped="$2"
    case "$job" in "") end_stopped ;; starting) ;; *) pass_on ;; esac
}

# Pass the signal on to the job. torchrun tells of a signal as of an error. So its ranks get it, which save and end well, and
# before they train all end at once. A job that has no group of its own yet has begun nothing.
pass_on() {
    local ranks
    ranks=$(pgrep -P "$job") || true
    if [ "$launcher" != torchrun ] || ! command -v pgrep; then
        kill "-$signal" -- "-$job" || kill -TERM "$job" || true
    elif [ -n "$ranks" ] && [ "$trains_with" -nt "$trains_since" ]; then
        # shellcheck disable=SC2086
        kill "-$signal" $ranks || true
    else
        # shellcheck disable=SC2086
        kill -KILL "$job" $ranks || true
    fi
} > /dev/null 2>&1

end_stopped() {
    printf '\nStopped during %s. The same command goes on from there.\n' "$doing" >&8
    exit "$stopped"
}

# watched COMMAND...: run a command that ends with all its processes where this script is stopped. A script's background job
# ignores Ctrl-C, and one in the foreground gets it past the script; so it has a process group of its own.
watched() {
    local status
    launcher="$1" job=starting
    "$python" -c "import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setpgid(0, 0)
os.execvp(sys.argv[1], sys.argv[1:])" "$@" < /dev/null &
    job=$!
    [ -z "$stopped" ] || pass_on
    while status=0; wait "$job" 2> /dev/null || status=$?; kill -0 "$job" 2> /dev/null; do :; done
    [ -z "$stopped" ] || { kill -KILL -- "-$job" 2> /dev/null || true; end_stopped; }
    job=""
    return "$status"
}

install_environment() {
    local extras="$1" wanted shebang
    python="${PYTHON:-python3}"
    if [ -n "${SKIP_INSTALL:-}" ]; then
        python=python
        python -c "import importlib.util as u; all(map(u.find_spec, ('torch', 'numba', 'orjson'))) or exit(1)" 2> /dev/null && return
        echo "error: SKIP_INSTALL=1 takes the environment as it is, and its python lacks torch, numba or orjson; activate another" >&2
        exit 2
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.11" >&2
        exit 2
    }
    wanted="$extras $(cat constraints.txt pyproject.toml scripts/environment.sh | cksum)"
    if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$wanted" ]; then
        doing="the installation"
        # its last file tells that it is whole
        [ -e .venv/bin/activate ] || { echo "+ $python -m venv .venv"; watched "$python" -m venv .venv; }
        .venv/bin/python -c "import pip" 2> /dev/null || watched .venv/bin/python -m ensurepip
        echo "+ .venv/bin/python -m pip install --constraint constraints.txt --editable .${extras:+[$extras]}"
        echo "  (minutes the first time; the log is .venv/install.log)"
        if ! pip_install torch > .venv/install.log 2>&1 || ! pip_install --editable ".${extras:+[$extras]}" >> .venv/install.log 2>&1; then
            tail -n 30 .venv/install.log >&2
            echo "error: the installation failed; the whole log is .venv/install.log" >&2
            exit 2
        fi
        # NVIDIA's own reader of .bin/.idx files is an oracle of the tests; its many optional dependencies are not needed for that
        case ",$extras," in *,test,*) pip_install --no-deps megatron-core >> .venv/install.log 2>&1 ;; esac
        echo "$wanted" > ".venv/installed-$extras"
    fi
    shebang=$(head -n 1 .venv/bin/torchrun 2> /dev/null || true)
    shebang="${shebang#"#!"}" shebang="${shebang%% *}"
    [ -e "${shebang:-/}" ] || {
        echo "error: .venv was made in another folder, and its commands look for $shebang; move it away, and it is made again" >&2
        exit 2
    }
    export PATH="$PWD/.venv/bin:$PATH"
    python=python
}

pip_install() {
    watched .venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt "$@"
}
