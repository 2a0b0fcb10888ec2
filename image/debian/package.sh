#!/bin/sh
# Packs the programs and units: package.sh <folder of built programs> <output folder>
# The same programs and units give the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
programs=$1 out=$2
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$top/Cargo.toml" | head -n 1)
export SOURCE_DATE_EPOCH=1767225600
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# Readable by all, whatever the caller's umask.
umask 022
mkdir -p "$stage/DEBIAN" "$stage/usr/bin" "$stage/usr/lib/berth" "$stage/usr/lib/systemd" "$stage/usr/share/doc/berth"
strip -o "$stage/usr/bin/berth" "$programs/berth"
for program in berthd berth-run berth-dns berth-installer; do strip -o "$stage/usr/lib/berth/$program" "$programs/$program"; done
cp -r "$top/units/system" "$top/units/system-preset" "$stage/usr/lib/systemd/"
cp -r "$top/units/tmpfiles.d" "$top/units/sysctl.d" "$top/units/modules-load.d" "$stage/usr/lib/"
# Manual pages and completions come out of the program itself.
man=$stage/usr/share/man/man1 completions=$stage/usr/share
mkdir -p "$man" "$completions/bash-completion/completions" "$completions/zsh/vendor-completions" "$completions/fish/vendor_completions.d"
"$programs/berth" manual "$man"
gzip -9n "$man"/*
"$programs/berth" completions bash >"$completions/bash-completion/completions/berth"
"$programs/berth" completions zsh >"$completions/zsh/vendor-completions/_berth"
"$programs/berth" completions fish >"$completions/fish/vendor_completions.d/berth.fish"
cp "$here/package/copyright" "$stage/usr/share/doc/berth/copyright"
sed "s/@VERSION@/$version/" "$here/package/changelog" | gzip -9n >"$stage/usr/share/doc/berth/changelog.gz"
cp "$top/README.md" "$stage/usr/share/doc/berth/README.md"
for script in postinst prerm postrm; do install -m 755 "$here/package/$script" "$stage/DEBIAN/$script"; done

# The newest glibc that any of the programs asks for.
glibc=$(objdump -T "$stage"/usr/bin/berth "$stage"/usr/lib/berth/* | sed -n 's/.*(\{0,1\}GLIBC_\(2\.[0-9.]*\)).*/\1/p' | sort -uV | tail -n 1)
size=$(du -sk "$stage" | cut -f 1)
sed -e "s/@VERSION@/$version/" -e "s/@GLIBC@/$glibc/" -e "s/@SIZE@/$size/" "$here/package/control" >"$stage/DEBIAN/control"
chmod -R u=rwX,go=rX "$stage"
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# Debian's policy knows no zstd.
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$out/berth_${version}_amd64.deb" >/dev/null
