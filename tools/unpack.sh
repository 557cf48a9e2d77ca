#!/bin/sh
# Checks the parts of a bundle, joins them, and installs beside what this machine has: no network.
#   sh unpack.sh                    check the parts that are here
#   sh unpack.sh --into FOLDER      and install; again when more parts have come, or after an abort
# PYTHON=/path/to/python sh unpack.sh ... installs beside another Python than `python3`.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || {
  echo "unpack: $python was not found; set PYTHON to the Python that is to be used." >&2
  exit 1
}
exec "$python" "$here/unpack.py" "$@"
