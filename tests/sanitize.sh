#!/usr/bin/env bash
# The core under AddressSanitizer and UndefinedBehaviorSanitizer: a debug build of its own below build/, and the
# tests that go through it.  Fails on a failed test and on any report.  Words are given to pytest: files or -k.
#
#     tests/sanitize.sh [PYTEST ARGUMENTS]
#
# Needs gcc; PYTHON is one with the test tools (make sanitize sees to that).
set -eu
cd "$(dirname "$0")/.."

python=$(command -v "${PYTHON:-python3}")
work=$PWD/build/sanitize
site=$work/site
tests=("$@")
[ $# -gt 0 ] || tests=(
    tests/properties/test_{event_queue,instruction_sets,simulation,windows}.py
    tests/gradients/test_{replay,event_gradients,edits,gains,dense_source}.py
    tests/unit/test_{kernels,sparse_rows,narrow_rows,narrow,dense,loss,events,counters,delta,fixed_point}.py
    tests/unit/test_{calibration,optimizer,bad_input}.py
)

# A copy of the sources, so that nothing of this build is ever taken for one of the ordinary kind.
rm -rf "$work"
mkdir -p "$work/source"
tar -c --exclude='*.so' --exclude=__pycache__ ./*.* LICENSE evsim cython_core models protocols data |
    tar -x -C "$work/source"

sanitizers=-fsanitize=address,undefined
echo "sanitize: building"
EVSIM_DEBUG=1 CC=gcc CFLAGS="$sanitizers -fno-omit-frame-pointer -O1 -g" LDFLAGS=$sanitizers \
    "$python" -m pip install -qq --no-deps --no-build-isolation --target "$site" "$work/source"

# Python keeps memory until the end and loads libraries that leak: leaks are for tests/unit/test_leaks.py.
# Its own allocator would hide what happens within its arenas.
options=log_path=$work/report:print_stacktrace=1
export ASAN_OPTIONS=$options:detect_leaks=0:allocator_may_return_null=1
export UBSAN_OPTIONS=$options:halt_on_error=0
export PYTHONMALLOC=malloc PYTHONPATH=$site PYTHONSAFEPATH=1 OPENBLAS_NUM_THREADS=1
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export LD_PRELOAD

failed=0
# Are they awake?  Nothing but them minds that this reads at an odd address, and writes behind two arrays.
# Beside the other one, the one for undefined behaviour writes to stderr, whatever its log_path: pytest is not
# to capture that.
"$python" -c "import numpy as np; from evsim.core import kernels as k; assert k.__file__.startswith('$site')
x = np.zeros(401, np.uint8)[1:].view('f4')
k.gates(x, np.ones(100, 'f4'), np.ones(100, 'f4'))
k.gates(np.ones(99), np.ones(1), np.ones(1))" 2>"$work/report.stderr" || true
for report in "runtime error" heap-buffer-overflow; do
    grep -q "$report" "$work"/report.* || { echo "sanitize: nothing reports a $report" >&2; exit 1; }
done
rm "$work"/report.*

"$python" -m pytest -q -s -m "not peer" -p no:cacheprovider "${tests[@]}" 2>"$work/stderr" || failed=$?
unset LD_PRELOAD

if grep -h -A 20 "runtime error" "$work/stderr" || compgen -G "$work/report.*" >/dev/null; then
    cat "$work"/report.* 2>/dev/null || true
    grep -h -E 'runtime error|ERROR: AddressSanitizer' "$work"/report.* "$work/stderr" | sort | uniq -c
    exit 1
fi
[ "$failed" -eq 0 ] && echo "sanitize: no reports"
exit "$failed"
