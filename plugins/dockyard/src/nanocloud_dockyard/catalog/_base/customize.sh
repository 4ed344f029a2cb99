#!/bin/sh
# Last step of mmdebstrap, before the tree becomes a tar: what belongs to the building host must not stay in the image.
set -eu
root=$1

# The sources and the settings of apt are the host's: they may name a mirror or hold a password. They are mounted
# while a recipe is built; here are the empty files to mount them on, so that no layer holds a mount point.
rm -rf "$root/etc/apt/sources.list.d" "$root/etc/apt/apt.conf.d/99mmdebstrap"
mkdir "$root/etc/apt/sources.list.d"
: > "$root/etc/apt/sources.list"
: > "$root/etc/apt/apt.conf.d/99nanocloud-host"
: > "$root/etc/hosts"
: > "$root/etc/resolv.conf"
: > "$root/etc/hostname"
chmod 0644 "$root/etc/hosts" "$root/etc/resolv.conf" "$root/etc/hostname"
mkdir -p "$root/usr/lib/nanocloud/host-apt" "$root/usr/lib/nanocloud/host-registries" "$root/var/cache/nanocloud"

# Manuals are left out, but update-alternatives stops a package's installation where their folders are missing.
for section in 1 2 3 4 5 6 7 8; do
    mkdir -p "$root/usr/share/man/man$section"
done

# Differs from run to run, and nothing reads it.
rm -rf "$root"/var/log/* "$root"/var/cache/ldconfig/aux-cache "$root"/var/cache/debconf/*-old "$root"/etc/*- \
    "$root"/var/lib/dpkg/*-old
