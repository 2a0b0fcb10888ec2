# Tries what every container's root is made of: an overlay whose lower layers, in directory $1,
# are seen with shifted owners. All mounts are in a namespace that ends with the inner shell.
set -eu
work=$(mktemp -d "$1/.berth-check.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/store" "$work/store/a" "$work/store/b" "$work/mapped" "$work/scratch" "$work/root"
: >"$work/store/a/file"
export work
unshare --mount --propagation private sh -eu <<'END'
mount --bind -o X-mount.idmap=b:0:100000:65536 "$work/store" "$work/mapped"
mount -t tmpfs -o size=1m tmpfs "$work/scratch"
mkdir "$work/scratch/upper" "$work/scratch/work"
lower="lowerdir+=$work/mapped/a,lowerdir+=$work/mapped/b"
mount -t overlay -o "$lower,upperdir=$work/scratch/upper,workdir=$work/scratch/work" overlay "$work/root"
owner=$(stat -c %u "$work/root/file")
[ "$owner" = 100000 ] || { echo "a file of root shows as $owner instead of 100000" >&2; exit 1; }
END
