//! Compiles the containers' first process, `init/`, which `berth-run` carries inside.
//!
//! It is a program without any library (see `init/main.rs`). Cargo builds every program of a
//! workspace with the same panic strategy, and this one needs its own; so it is compiled here.

#![allow(clippy::disallowed_methods, reason = "a build script runs the compiler; nothing of this is in a product")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=init");
    let output = PathBuf::from(env::var("OUT_DIR")?).join("berth-init");
    let mut compiler = Command::new(env::var("RUSTC")?);
    compiler.args(["init/main.rs", "--crate-name=berth_init", "--crate-type=bin", "--edition=2024"]);
    compiler.arg("--target").arg(env::var("TARGET")?).arg("-o").arg(&output);
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
