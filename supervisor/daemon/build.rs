//! Makes what `berthd` carries inside: the program of the image that `berth diagnostics` tries the machine with.

#![allow(clippy::disallowed_methods, reason = "a build script runs the compiler; nothing of this is in a product")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=probe");
    let output = PathBuf::from(env::var("OUT_DIR")?).join("berth-probe");
    let mut compiler = Command::new(env::var("RUSTC")?);
    compiler.args(["probe/main.rs", "--crate-name=berth_probe", "--crate-type=bin", "--edition=2024"]);
    compiler.arg("--target").arg(env::var("TARGET")?).arg("-o").arg(output);
    // Nothing else is in its image: no loader, no library.
    for option in
        ["target-feature=+crt-static", "relocation-model=static", "panic=abort", "opt-level=s", "strip=symbols"]
    {
        compiler.arg("-C").arg(option);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg("-C").arg(format!("linker={linker}"));
    }
    let status = compiler.status()?;
    if !status.success() {
        return Err(format!("compiling the program that the machine is tried with: {status}").into());
    }
    Ok(())
}
