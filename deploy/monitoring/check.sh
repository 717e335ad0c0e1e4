#!/bin/sh
# promtool's word on the rules: well formed, and each alert fires when it should and not in a calm hour.
set -eu
cd "$(dirname "$0")"
bin=$(./prometheus.sh) || { status=$?; [ "$status" = 3 ] && echo "SKIPPED: promtool's checks of deploy/monitoring" && exit 0; exit "$status"; }
"$bin/promtool" check config prometheus.yml
"$bin/promtool" test rules rules_test.yml
