//! What is downloaded of an image: compressed, for virtual machines, what an update takes, what is in it, checksums.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::{Image, ImageError};
use crate::cache::{self, at};
use crate::{spawn, tree};

/// What a published file is called, and how many bytes it has.
pub type Published = (String, u64);

/// Writes all files of a release into an empty folder; the last is `SHA256SUMS`.
pub fn publish(image: &Image, folder: &Path) -> Result<Vec<Published>, ImageError> {
    cache::remove(folder)?;
    at(folder, fs::create_dir_all(folder))?;
    compress(&image.disk(), folder)?;
    for part in image.parts()? {
        compress(&part, folder)?;
    }
    for_virtual_machines(image, folder)?;
    let parts = folder.join(format!("berth_{}.spdx.json", image.version));
    let text = format!("{:#}\n", bill_of_materials(image)?);
    at(&parts, fs::write(&parts, text))?;
    sums(folder)
}

fn compress(path: &Path, folder: &Path) -> Result<(), ImageError> {
    let name = format!("{}.xz", path.file_name().unwrap_or_default().display());
    let to = folder.join(name);
    let mut xz = spawn::command("xz");
    xz.args(["--threads=0", "--stdout"]).arg(path).stdout(at(&to, File::create(&to))?);
    Ok(spawn::run(&mut xz)?)
}

fn for_virtual_machines(image: &Image, folder: &Path) -> Result<(), ImageError> {
    let mut convert = spawn::command("qemu-img");
    convert.args(["convert", "-c", "-O", "qcow2"]).arg(image.disk());
    Ok(spawn::run(convert.arg(folder.join(format!("berth_{}.qcow2", image.version))))?)
}

/// Every package of Debian and every crate in it, as SPDX 2.3.
fn bill_of_materials(image: &Image) -> Result<Value, ImageError> {
    let listed = at(&image.packages, fs::read_to_string(&image.packages))?;
    let debian = listed.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (name, version, architecture) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), version.to_owned(), format!("pkg:deb/debian/{name}@{version}?arch={architecture}")))
    });
    let crates = crates()?.into_iter().map(|(name, version)| {
        let purl = format!("pkg:cargo/{name}@{version}");
        (name, version, purl)
    });
    let packages: Vec<Value> = debian.chain(crates).enumerate().map(package).collect();
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("berth_{}", image.version),
        "documentNamespace": format!("https://berth.dev/spdx/berth_{}", image.version),
        "creationInfo": {"created": "2026-01-01T00:00:00Z", "creators": ["Organization: Berth"]},
        "packages": packages,
    }))
}

fn package((number, (name, version, purl)): (usize, (String, String, String))) -> Value {
    json!({
        "SPDXID": format!("SPDXRef-{number}"),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    })
}

/// What is linked into the programs: lines as `serde v1.0.0`.
fn crates() -> Result<BTreeSet<(String, String)>, ImageError> {
    let mut cargo = spawn::command("cargo");
    cargo.args(["tree", "--locked", "--workspace", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let listed = spawn::output(cargo.current_dir(tree::top()))?;
    let named = String::from_utf8_lossy(&listed)
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        })
        .collect();
    Ok(named)
}

fn sums(folder: &Path) -> Result<Vec<Published>, ImageError> {
    let (mut published, mut text) = (Vec::new(), String::new());
    for path in cache::children(folder)? {
        let name = path.file_name().unwrap_or_default().display().to_string();
        let (sum, bytes) = at(&path, sum(&path))?;
        text += &format!("{sum}  {name}\n");
        published.push((name, bytes));
    }
    let path = folder.join("SHA256SUMS");
    at(&path, fs::write(&path, text))?;
    Ok(published)
}

/// A file's checksum in hexadecimal digits, and its length.
fn sum(path: &PathBuf) -> io::Result<(String, u64)> {
    struct Summing(Context);
    impl Write for Summing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut summing = Summing(Context::new(&SHA256));
    let bytes = io::copy(&mut File::open(path)?, &mut summing)?;
    let digest = summing.0.finish();
    Ok((digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}
