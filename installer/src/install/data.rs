//! The data partition, made as a first start makes it, with what the machine is to be set to in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_host::cmd::Command;
use berth_host::fs::{FsError, remove_dir_all, remove_file};

use super::{Order, Plan, Why, system};
use crate::disks::DATA;
use crate::mode::FOLDER;
use crate::seed;

const PROGRAM: &str = "/usr/lib/berth/data";
/// What it is called while it is open.
const MAPPED: &str = "berth-installed";

/// Makes it; returns the recovery code.
pub(super) async fn make(plan: &Plan, order: &Order) -> Result<String, Why> {
    let part = system::part_of(&plan.disk, |part| part.partlabel.as_deref() == Some(DATA)).await?;
    let (seed, code) = (Path::new(FOLDER).join("seed"), Path::new(FOLDER).join("recovery-code"));
    seed::lay(&seed, &order.config, &order.text, &order.files)?;
    let arguments = [part.display().to_string(), MAPPED.to_owned(), code.display().to_string()];
    Command::new(PROGRAM).args(arguments).timeout(Duration::from_secs(600)).run().await?;
    let told = fs::read_to_string(&code).map_err(|source| FsError::new("reading", &code, source))?;
    remove_file(&code)?;
    remove_dir_all(&seed)?;
    Ok(told.trim().to_owned())
}
