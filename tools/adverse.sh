#!/bin/sh
# The suite under adverse conditions: a course folder that is read-only, no network, one processor, another current
# folder, odd settings of the terminal, and tests in shuffled order. tools/matrix.py starts it in a mount and a network
# namespace (`unshare --mount --net`) with these variables: COURSE a copy of the course, PYTHON, REPORTS a folder.
set -u
mount --bind "$COURSE" "$COURSE"
mount -o remount,bind,ro "$COURSE"
if touch "$COURSE/helpers.py" 2>/dev/null; then echo "The course can be written to."; exit 1; fi
ip link set lo up  # kernels talk to papermill through it
cd /
export COLUMNS=37 LC_ALL=C TF_CPP_MIN_LOG_LEVEL=0
suite() {
  taskset --cpu-list 0 "$PYTHON" -m pytest --nbval -rfE --junitxml="$REPORTS/$1.xml" "$COURSE/$1" -p "$2"
}
suite notebooks no:randomly
suite tests randomly
