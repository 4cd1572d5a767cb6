#!/bin/busybox sh
# The first process of a test's virtual machine: loads the modules, then runs what it is told.
#
#   in:   a command, in one line
#   out:  BYTES CODE, then as many bytes of what the command printed
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# DPDK loads no drivers from folders that everybody may write.
chmod 755 /
mkdir -p /dev/shm /var /root
ln -s /run /var/run
while read -r module; do insmod "$module" || echo "no module $module"; done </etc/modules
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec <>/dev/ttyS1
echo ready >&0
while read -r command; do
    sh -c "$command" </dev/null >/tmp/said 2>&1
    code=$?
    echo "$(wc -c </tmp/said) $code" >&0
    cat /tmp/said >&0
done
