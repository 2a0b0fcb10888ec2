//! Makes what `berth-run` carries inside: the containers' first process and their system call filter.

#![allow(clippy::disallowed_methods, reason = "a build script runs the compiler; nothing of this is in a product")]

use std::env;
use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use list::Condition;

#[path = "src/seccomp/list.rs"]
mod list;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=src/seccomp/list.rs");
    let output = PathBuf::from(env::var("OUT_DIR")?);
    compile_init(&output.join("berth-init"))?;
    for (name, beyond) in [("runtime-default", ScmpAction::Allow), ("baseline", ScmpAction::Errno(libc::EPERM))] {
        filter(beyond)?.export_bpf(File::create(output.join(format!("seccomp-{name}.bpf")))?)?;
    }
    Ok(())
}

/// `init/` is a program without any library (see `init/main.rs`). Cargo builds every program of a
/// workspace with the same panic strategy, and this one needs its own; so it is compiled here.
fn compile_init(output: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = Command::new(env::var("RUSTC")?);
    compiler.args(["init/main.rs", "--crate-name=berth_init", "--crate-type=bin", "--edition=2024"]);
    compiler.arg("--target").arg(env::var("TARGET")?).arg("-o").arg(output);
    for option in ["panic=abort", "opt-level=s", "relocation-model=static", "strip=symbols", "overflow-checks=no"] {
        compiler.arg("-C").arg(option);
    }
    for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"] {
        compiler.arg("-C").arg(format!("link-arg={option}"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg("-C").arg(format!("linker={linker}"));
    }
    let status = compiler.status()?;
    if !status.success() {
        return Err(format!("compiling the containers' first process: {status}").into());
    }
    Ok(())
}

/// The filter for the machine that is built for, which answers so to calls beyond the baseline: what no rule names does
/// not exist.
fn filter(beyond: ScmpAction) -> Result<ScmpFilterContext, Box<dyn Error>> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::ENOSYS))?;
    filter.add_arch(architecture()?)?.set_act_badarch(ScmpAction::KillProcess)?;
    let denied = ScmpAction::Errno(libc::EPERM);
    for (groups, action) in
        [(list::ALLOWED, ScmpAction::Allow), (list::BEYOND_BASELINE, beyond), (list::DENIED, denied)]
    {
        for name in groups.iter().flat_map(|group| group.names) {
            add(&mut filter, action, name, &[])?;
        }
    }
    for call in list::CONDITIONAL {
        for condition in call.allowed {
            add(&mut filter, ScmpAction::Allow, call.name, &comparators(*condition))?;
        }
        for (condition, errno) in call.refused {
            add(&mut filter, ScmpAction::Errno(*errno), call.name, &comparators(*condition))?;
        }
    }
    // The builder's own, which every context begins with.
    if !ScmpArch::native().eq(&architecture()?) {
        filter.remove_arch(ScmpArch::native())?;
    }
    Ok(filter)
}

/// Calls that other architectures have, or kernels later than the builder's libseccomp, are passed over.
fn add(
    filter: &mut ScmpFilterContext,
    action: ScmpAction,
    name: &str,
    when: &[ScmpArgCompare],
) -> Result<(), Box<dyn Error>> {
    if let Ok(call) = ScmpSyscall::from_name(name) {
        filter.add_rule_conditional(action, call, when).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn comparators(condition: Condition) -> Vec<ScmpArgCompare> {
    let compare = |argument: u8, op, value| ScmpArgCompare::new(argument.into(), op, value);
    match condition {
        Condition::Equal(argument, value) => vec![compare(argument, ScmpCompareOp::Equal, value)],
        Condition::BothEqual((one, first), (other, second)) => {
            vec![compare(one, ScmpCompareOp::Equal, first), compare(other, ScmpCompareOp::Equal, second)]
        }
        Condition::Above(argument, value) => vec![compare(argument, ScmpCompareOp::Greater, value)],
        Condition::NoBits(argument, mask) => vec![compare(argument, ScmpCompareOp::MaskedEqual(mask), 0)],
        Condition::AllBits(argument, mask) => vec![compare(argument, ScmpCompareOp::MaskedEqual(mask), mask)],
    }
}

fn architecture() -> Result<ScmpArch, Box<dyn Error>> {
    match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => Ok(ScmpArch::X8664),
        "aarch64" => Ok(ScmpArch::Aarch64),
        "riscv64" => Ok(ScmpArch::Riscv64),
        other => Err(format!("no system call filter is known for {other}").into()),
    }
}
