# Sets suite, and mirror: BERTH_DEBIAN_MIRROR, or the one this machine's apt uses if it is a Debian, or mmdebstrap's own.
# shellcheck shell=sh disable=SC2034
suite=trixie
mirror=${BERTH_DEBIAN_MIRROR:-}
if [ -z "$mirror" ] && [ "$(. /etc/os-release && echo "$ID")" = debian ]; then
    mirror=$(apt-get indextargets --format '$(SITE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | awk '$2 == "main" { print $1; exit }')
fi
