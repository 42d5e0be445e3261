# Sourced by the other scripts: makes .venv and installs the project with the extras given, as constraints.txt says.
# PYTHON names another interpreter; SKIP_INSTALL=1 takes the environment as it is, for containers and the like.
install_environment() {
    local extras="$1" python="${PYTHON:-python3}" wanted
    if [ -n "${SKIP_INSTALL:-}" ]; then
        python -c "import importlib.util as u; all(map(u.find_spec, ('torch', 'numba', 'orjson'))) or exit(1)" 2> /dev/null && return
        echo "error: SKIP_INSTALL=1 takes the environment as it is, and its python lacks torch, numba or orjson; activate another" >&2
        exit 2
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.11" >&2
        exit 2
    }
    [ -x .venv/bin/python ] || { echo "+ $python -m venv .venv"; "$python" -m venv .venv; }
    wanted="$extras $(cat constraints.txt pyproject.toml scripts/environment.sh | cksum)"
    if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$wanted" ]; then
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
    export PATH="$PWD/.venv/bin:$PATH"
}

pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt "$@"
}
