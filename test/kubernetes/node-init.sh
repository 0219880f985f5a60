#!/bin/bash
# The first process of a node, in namespaces of its own: gives it its file systems, says "ready", then reaps. When it
# ends, the kernel ends everything on the node and takes the mounts away.
# node-init.sh NAME DISK PACKAGES CACHE
set -euo pipefail
name=$1 disk=$2 packages=$3 cache=$4

hostname "$name"
# Only a mount can become the root.
mount --bind "$disk" "$disk"
# The machine's programs, with those of the unpacked packages over them.
mount -t overlay -o "ro,lowerdir=$packages/usr:/usr" node-usr "$disk/usr"
mount -t proc proc "$disk/proc"
mount -t sysfs sysfs "$disk/sys"
mount --rbind /sys/fs/cgroup "$disk/sys/fs/cgroup"
mount --rbind /dev "$disk/dev"
mount -t tmpfs -o mode=755 run "$disk/run"
mount -t tmpfs -o mode=1777 tmp "$disk/tmp"
mkdir -p "$disk$cache"
mount --bind -o ro "$cache" "$disk$cache"

cd "$disk"
pivot_root . mnt
umount --lazy /mnt
# Mounts that pods make for the node reach it.
mount --make-rshared /

# The kubelet sets these for the whole machine, a panic on every oops among them: it sees what it wants, and leaves them.
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file=/run/sysctl-$(basename "${setting%=*}")
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done

# The network namespace outlives the node's processes. A node that boots has no rules and no bridge.
for restore in iptables-restore ip6tables-restore; do
  printf '*%s\nCOMMIT\n' mangle nat filter | $restore
done
ip link delete cni0 2>/dev/null || true
sysctl --quiet --write net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

echo ready
# bash reaps whatever is orphaned while it waits.
while :; do
  sleep infinity &
  wait
done
