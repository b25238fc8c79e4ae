#!/usr/bin/env bash
# Installs the programs that `make faults` needs in addition to those of `make test`: an emulator and
# a kernel for virtual machines that lose their power. It installs only as root on Debian. It unpacks
# the kernel package into a cache directory, so this machine does not boot that kernel. On other
# systems it lists the missing programs. `make faults` skips the rows that need them, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

[[ $(uname -s) == Linux ]] || { warn "virtual machines for the fault campaign are only made on Linux"; exit 0; }

missing=() packages=()
need() { command -v "$1" >/dev/null || { missing+=("$1"); packages+=("$2"); }; }
need qemu-system-x86_64 qemu-system-x86
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need tc iproute2
need depmod kmod
need nft nftables
need setpriv util-linux

if ((${#packages[@]})) && debian_root; then
  step "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -yq --no-install-recommends "${packages[@]}" >&2
  missing=()
fi

kernels=${SURGETANK_GUEST_KERNEL:-${XDG_CACHE_HOME:-$HOME/.cache}/surgetank-faults/kernel}
if ! compgen -G "$kernels/lib/modules/*/modules.dep" >/dev/null; then
  if debian_root && [[ $(uname -m) == x86_64 ]]; then
    step "unpacking a kernel into $kernels"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
    [[ -n $package ]] || { apt-get update -q >&2; package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}'); }
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >&2)
    mkdir -p "$kernels"
    dpkg-deb -x "$work"/*.deb "$kernels"
    for m in "$kernels"/lib/modules/*; do depmod -b "$kernels" "$(basename "$m")"; done
  else
    missing+=("a kernel package unpacked in $kernels, with modules.dep")
  fi
fi

if ((${#missing[@]})); then
  printf 'missing: %s\n' "${missing[@]}" >&2
  warn "the rows of the fault campaign that need these will be skipped, and say so"
fi
