#!/bin/sh
# Process 1 of a node. It is started in new mount, UTS, IPC, PID and cgroup namespaces and in the node's network; it
# gives the node folders of its own, then runs the container runtime and kubelet, and runs them again when they end.
# usage: node-init.sh FILE, where FILE sets: name lab repository programs(:) images layout role address addresses
set -eu
. "$1"
mine=$lab/nodes/$name
read -r outside_pid rest </proc/self/stat # still the machine's /proc: the pid that others know

mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ "$layout" = unified ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # A group that hands controllers to groups below it may hold no process: ours go to a leaf.
  mkdir -p /sys/fs/cgroup/init
  echo 0 >/sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    tries=0 # until whoever started us has left the group as well
    until echo "+$controller" 2>/dev/null >/sys/fs/cgroup/cgroup.subtree_control || [ "$tries" = 100 ]; do
      tries=$((tries + 1))
      sleep 0.02
    done
  done
else
  mount -t tmpfs -o mode=755 cgroups /sys/fs/cgroup
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
  while IFS=: read -r number controllers path; do
    [ -n "$controllers" ] || continue
    folder=/sys/fs/cgroup/${controllers#name=}
    mkdir -p "$folder"
    case $controllers in
      name=*) mount -t cgroup -o "none,$controllers" cgroup "$folder" ;;
      *) mount -t cgroup -o "$controllers" cgroup "$folder" ;;
    esac
  done </proc/self/cgroup
fi
mount -t bpf bpf /sys/fs/bpf
hostname "$name"

# What the node shares with the outside, under paths that nothing mounted below hides.
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lab/state /run/lab/weir /run/lab/images /run/weir /run/netns /run/lock /run/containerd
mount --bind "$lab" /run/lab/state
mount --bind "$repository" /run/lab/weir
[ "$role" = none ] || mount --bind "$images" /run/lab/images
path=
number=0
IFS=:
for folder in $programs; do
  number=$((number + 1))
  mkdir "/run/lab/$number"
  mount --bind "$folder" "/run/lab/$number"
  path=$path/run/lab/$number:
done
unset IFS
export PATH="${path}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root
lab=/run/lab/state mine=/run/lab/state/nodes/$name
mkdir -p "$mine/run" "$mine/log"
mount --bind "$mine/run" /run/weir

for each in etc opt; do
  mkdir -p "$mine/$each" "$mine/.$each.work"
  # The work folder must be on the same mount as the upper one.
  mount -t overlay -o "lowerdir=/$each,upperdir=$mine/$each,workdir=$mine/.$each.work" "$each" "/$each"
done
mount -t tmpfs -o mode=755 lib /var/lib
for each in kubelet containerd weir cni; do
  mkdir -p "/var/lib/$each" "$mine/lib/$each"
  mount --bind "$mine/lib/$each" "/var/lib/$each"
done
mount --bind "$mine/log" /var/log
# Folders of their own, not of the overlays: what is written into them from outside is seen inside at once.
mkdir -p /etc/cni/net.d /opt/cni/bin "$mine/cni/net.d" "$mine/cni/bin" /etc/containerd /etc/kubernetes
mount --bind "$mine/cni/net.d" /etc/cni/net.d
mount --bind "$mine/cni/bin" /opt/cni/bin
echo "$name" >/etc/hostname
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$address" "$name" >/etc/hosts
rm -f /etc/resolv.conf # may be a link to a place that is not here
echo 'nameserver 127.0.0.1' >/etc/resolv.conf

# kubelet sets these for the whole machine unless it finds the values it wants. Here it does, and the machine keeps its own.
pretend() {
  mkdir -p /run/lab/sysctl
  echo "$2" >"/run/lab/sysctl/${1##*/}"
  mount --bind "/run/lab/sysctl/${1##*/}" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
mount --make-rshared /
echo "$outside_pid" >"$mine/init.pid.partial"
mv "$mine/init.pid.partial" "$mine/init.pid"

if [ "$role" = none ]; then
  # Nothing to run; wait for orphans until killed.
  while :; do sleep 3600 & wait; done
fi

# keep NAME COMMAND...: runs it again when it ends, so that a test may end it.
keep() {
  log=$lab/logs/$name-$1.log
  shift
  while :; do
    "$@" >>"$log" 2>&1 || true
    echo "node-init: $1 ended, it is started again" >>"$log"
    sleep 1
  done
}
keep containerd containerd --config "$mine/containerd.toml" &
until ctr version >/dev/null 2>&1; do sleep 0.05; done
# kubelet waits ever longer between its attempts to reach the API server: it is not started before that answers.
until [ -e "$lab/api-ready" ]; do sleep 0.05; done
keep kubelet kubelet --config "$mine/kubelet.json" --kubeconfig "$lab/pki/$name.kubeconfig" \
  --root-dir /var/lib/kubelet --node-ip "$addresses" --hostname-override "$name" &
while read -r archive; do
  nice -n 5 ctr --namespace k8s.io image import --local "/run/lab/images/$archive" >/dev/null ||
    echo "node-init: $archive could not be imported"
done <"$mine/images.list"
touch "$mine/images-ready"
while :; do wait || true; done
