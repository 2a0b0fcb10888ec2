# Every step has one recipe. `./dev <recipe>` installs what is missing first.
vm := "target/debug/berth-vm"

# What there is.
default:
    @just --list --unsorted

# All programs and tests, once; nothing below compiles anything again.
build:
    cargo build --quiet --workspace --all-targets

# The .deb; prints its path.
payload: build
    @{{vm}} payload

# The test guest's root disk.
guest: build
    @{{vm}} guest

# The container images for the tests.
images: build
    @{{vm}} images

# The appliance's image, to be flashed or booted, and what an update takes, of what is released; in target/image.
image:
    cargo build --quiet --release --workspace --bins
    @target/release/berth-vm image

# A Berth machine with nginx on it. Again: brings it to the present build, else changes nothing.
up: build
    @{{vm}} up

# Ends it.
down: build
    @{{vm}} down

# A shell in it.
sh:
    @{{vm}} sh

# The command line in it, e.g. `./dev berth status`.
berth *arguments:
    @{{vm}} berth {{arguments}}

# What the supervisor and its services write; or `./dev logs -f -u 'berth.*'`.
logs *arguments:
    @{{vm}} logs {{arguments}}

# The CI tier of all suites; ends with one line: passed, failed.
test:
    @tests/tier ci

# All of the booted machine's, and with their full counts; or those whose names begin so, e.g. `vm::steps`.
test-long *names:
    @tests/tier long {{names}}

# Pure code, real files, in-process API.
test-unit:
    @tests/tier unit

# What needs network namespaces and root.
test-netns:
    @tests/tier netns

# What needs the booted machine.
test-vm:
    @tests/tier vm

# An hour of services that come and go at random; `BERTH_SOAK` is minutes, `BERTH_SEED` replays one.
soak: build
    BERTH_SOAK=${BERTH_SOAK:-60} cargo test --quiet --workspace --test it -- --ignored --nocapture vm::soak::

# Sends libFuzzer through patches, selectors, manifests and bodies, each for a minute or so many seconds.
fuzz seconds="60":
    @tests/fuzz {{seconds}}

# Form, lints and the house rules.
lint: fmt-check
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    cargo test --quiet --workspace --test it -- house::

# Formats the code.
fmt:
    cargo fmt --all

[private]
fmt-check:
    cargo fmt --all --check

# BERTH_BENCH_ONLY="disks networks starts requests lives boots looks" names the parts that are wanted: these are printed only.
# Ratios against peers, of what is released; written to tests/bench.
bench:
    cargo build --quiet --release --workspace --bins --examples
    @target/release/berth-vm bench
