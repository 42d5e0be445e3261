# Sourced by the other scripts: makes .venv and installs the project with the extras given, as constraints.txt says.
# PYTHON names another interpreter.
install_environment() {
    local extras="$1" python="${PYTHON:-python3}" wanted
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3.11" >&2
        exit 2
    }
    [ -x .venv/bin/python ] || { echo "+ $python -m venv .venv"; "$python" -m venv .venv; }
    wanted="$extras $(cat constraints.txt pyproject.toml scripts/environment.sh | cksum)"
    if [ "$(cat ".venv/installed-$extras" 2>/dev/null)" != "$wanted" ]; then
        echo "+ .venv/bin/python -m pip install --constraint constraints.txt --editable .${extras:+[$extras]}"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".${extras:+[$extras]}"
        case ",$extras," in
        # NVIDIA's own reader of .bin/.idx files is an oracle of the tests; its many optional dependencies are not needed for that
        *,test,*) .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps megatron-core ;;
        esac
        echo "$wanted" > ".venv/installed-$extras"
    fi
    export PATH="$PWD/.venv/bin:$PATH"
}
