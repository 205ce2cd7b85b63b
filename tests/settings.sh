#!/bin/sh
# Runs the fast tests in settings that differ as machines do: none may change a result.
#
#   tests/settings.sh [NAME...]      all of them, or those named: no-xnnpack, no-onednn, sse41,
#                                    one-core, traced-twice, late-names, shuffled
#
# PYTHON is the interpreter (.venv/bin/python), SEED that of the order (1). For each setting it
# prints how many tests passed, failed and were skipped, and the seconds of processor time; the
# whole output is in runs/settings/NAME.log. It exits with 1 where any setting had a failure.

cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
folder=runs/settings
mkdir -p "$folder"
status=0

run() { # NAME ENVIRONMENT COMMAND-PREFIX PYTEST-OPTIONS
	log=$folder/$1.log
	# shellcheck disable=SC2086
	( env $2 $3 "$python" -m pytest -n 2 --dist loadfile $4 >"$log" 2>&1; code=$?
	  times >"$folder/$1.times"; exit $code ) || status=1
	seconds=$(sed -n 2p "$folder/$1.times" | tr 'ms' '  ' | awk '{printf "%.0f", 60 * ($1 + $3) + $2 + $4}')
	printf '%-11s %s; %s s of processor time\n' "$1" "$(grep -aE '^[0-9]+ (passed|failed)' "$log" | tail -n 1)" "$seconds"
}

setting() {
	case $1 in
	# LiteRT's own kernels in place of XNNPACK's, which no delegate takes from a device.
	no-xnnpack) run "$1" "" "" --no-xnnpack ;;
	# TensorFlow trains with Eigen's kernels in place of oneDNN's.
	no-onednn) run "$1" TF_ENABLE_ONEDNN_OPTS=0 "" "" ;;
	# oneDNN and OpenBLAS as on a processor of 2008: other widths of vectors, other sums.
	sse41) run "$1" "ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem" "" "" ;;
	# One processor for both processes and all their threads; slow, as a loaded machine is.
	one-core)
		first=$("$python" -c 'import os; print(min(os.sched_getaffinity(0)))')
		run "$1" "" "taskset -c $first" "" ;;
	# Keras traces a training step twice by itself; else tests, as jobs do, have it trace once.
	# TensorFlow also optimizes each graph, which else only processes of their own do.
	traced-twice) run "$1" "" "" --trace-twice ;;
	# Long names where Keras counts them: a file's size is no matter of how many tests ran before.
	late-names) run "$1" "" "" --late-names ;;
	# Files, and the tests within each, in another order.
	shuffled) run "$1" "" "" "--shuffle ${SEED:-1}" ;;
	*) echo "there is no setting $1" >&2; exit 2 ;;
	esac
}

for name in ${*:-no-xnnpack no-onednn sse41 one-core traced-twice late-names shuffled}; do
	setting "$name"
done
exit $status
