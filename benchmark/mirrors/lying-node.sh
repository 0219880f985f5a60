#!/bin/sh
# This program on all nodes, and on n2 one that lies to the others about its progress (test/support/lying-mirror.ts):
#   --mirror 'lying=benchmark/mirrors/lying-node.sh {node} {ip} {peers} {content} --registry-addr :{registryPort} …'
# with what `spegel-ts registry` needs (bin/spegel-ts registry --help) in place of the dots.
set -eu
root=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
node=$1 ip=$2 peers=$3 content=$4
shift 4
if [ "$node" = n2 ]; then
  exec "$root/bin/run" node "$root/test/support/lying-mirror.ts" "$ip" "$peers" "$content" "$@"
fi
exec "$root/bin/spegel-ts" registry "$@"
