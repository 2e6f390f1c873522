#!/usr/bin/env bash
# Runs every kernel of the AVX-512 path without such a processor: Linux, with the driver of the kernels as its
# only program, boots in Bochs, which emulates a Skylake-X instruction by instruction (about two minutes).
# All paths must print what an unoptimised build prints here.
#
#     tests/emulate_avx512.sh [VMLINUZ]
#
# Debian: apt install bochs bochs-term bochsbios grub-pc-bin grub-common xorriso mtools cpio linux-image-cloud-amd64
set -eu
cd "$(dirname "$0")/.."

kernel=${1:-$(find /boot -name 'vmlinuz-*' 2>/dev/null | sort | tail -n 1)}
cc=${CC:-cc}
for program in bochs grub-mkrescue xorriso cpio script; do
    command -v "$program" >/dev/null || { echo "emulate_avx512: $program is missing, see the top of $0" >&2; exit 2; }
done
[ -f "$kernel" ] || { echo "emulate_avx512: no Linux kernel in /boot; give one: $0 VMLINUZ" >&2; exit 2; }

core=$PWD/cython_core
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3} # with setuptools
flags=$("$python" -c "import runpy; print(*runpy.run_path('setup.py')['FLAGS'])")
"$python" tests/oracles/kernel_driver.py >"$work/driver.c"
cd "$work"

"$cc" -O0 -I"$core" driver.c "$core"/kernel_*.c -o plain -lm
./plain | sed -n 's/^baseline //p' >expected

# The first program of a Linux: prints on the serial line and switches the machine off.
cat >init.c <<'PROGRAM'
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
int driver(void);
int main(void)
{
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    dup2(open("/dev/ttyS0", O_RDWR), 1);
    driver();
    fflush(stdout);
    sleep(1);
    return reboot(RB_POWER_OFF);
}
PROGRAM
# shellcheck disable=SC2086 # the flags are words
"$cc" $flags -c "$core"/kernel_*.c
"$cc" -O1 -ffp-contract=off -Dmain=driver -I"$core" -c driver.c
mkdir -p root iso/boot/grub
"$cc" -static init.c driver.o kernel_*.o -o root/init -lm
(cd root && echo init | cpio -o -H newc --quiet) | gzip >iso/boot/initrd.gz
cp "$kernel" iso/boot/vmlinuz

# Bochs 2.7 gives Linux a wrong size of XSAVEC's area, and Linux would then do without AVX.
cat >iso/boot/grub/grub.cfg <<'MENU'
set timeout=0
menuentry evsim {
    linux /boot/vmlinuz console=ttyS0,115200 mitigations=off tsc=reliable clearcpuid=xsaves,xsavec panic=1
    initrd /boot/initrd.gz
}
MENU
grub-mkrescue -o boot.iso iso >/dev/null 2>grub.log || { cat grub.log >&2; exit 1; }

cat >bochsrc <<'MACHINE'
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, ips=100000000, reset_on_triple_fault=0
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial
log: bochs.log
panic: action=fatal
info: action=ignore
clock: sync=none
speaker: enabled=0
sound: waveoutdrv=dummy
display_library: term
MACHINE
echo c >start # for a Bochs with a debugger: go on
# `script` is the terminal that Bochs asks for; it may miss Bochs's end.
TERM=xterm timeout 900 script -qfc "bochs -q -f bochsrc -rc start" /dev/null >screen </dev/null &
while kill -0 $! 2>/dev/null && ! grep -qs 'Power down' serial; do sleep 2; done
kill $! 2>/dev/null || true

failed=0
for path in avx512 avx2 baseline; do
    tr -d '\r' <serial | sed -n "s/^$path //p" >"found-$path"
    if cmp -s expected "found-$path"; then
        echo "$path: $(wc -l <expected) kernels give the same bits"
    else
        echo "$path: NOT the same"
        diff expected "found-$path" | head -n 5 || true
        failed=1
    fi
done
exit "$failed"
