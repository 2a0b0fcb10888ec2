//! What is downloaded of an image: compressed, for virtual machines, what an update takes, what is in it, checksums.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_model::release;
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::{Image, ImageError};
use crate::cache::{self, at};
use crate::{spawn, tree};

/// What a published file is called, and how many bytes it has.
pub type Published = (String, u64);

/// Writes all files of a release into an empty folder; `SHA256SUMS` and its signature among them.
pub fn publish(image: &Image, folder: &Path) -> Result<Vec<Published>, ImageError> {
    cache::remove(folder)?;
    at(folder, fs::create_dir_all(folder))?;
    compress(&image.disk(), folder)?;
    let [usr, verity, kernel] = image.parts()?;
    for part in [&usr, &verity] {
        compress(part, folder)?;
    }
    // Its sum is also that of what lies on the machine afterwards, and most of it is compressed already.
    copy(&kernel, folder)?;
    for_virtual_machines(image, folder)?;
    let parts = folder.join(format!("berth_{}.spdx.json", image.version));
    let text = format!("{:#}\n", bill_of_materials(image)?);
    at(&parts, fs::write(&parts, text))?;
    let published = sums(folder)?;
    sign(folder, &image.version, CHANNEL)?;
    Ok(published)
}

/// Writes what an update takes, and not compressed, into an empty folder: for machines that are near.
pub fn update(image: &Image, folder: &Path, channel: &str) -> Result<(), ImageError> {
    cache::remove(folder)?;
    at(folder, fs::create_dir_all(folder))?;
    for part in image.parts()? {
        copy(&part, folder)?;
    }
    seal(folder, &image.version, channel)
}

/// Writes and signs the list of what lies there.
pub fn seal(folder: &Path, version: &str, channel: &str) -> Result<(), ImageError> {
    sums(folder)?;
    sign(folder, version, channel)
}

/// Where what is made goes if nothing else is said.
const CHANNEL: &str = "stable";

/// A key pair for releases.
pub struct Signer {
    /// What goes into every image.
    pub public: PathBuf,
    secret: PathBuf,
}

/// The key pair in the folder of `BERTH_RELEASE_KEYS`, as `release.pub` and `release.key`; else one that is drawn for this
/// user, which nobody else's machines trust.
pub fn signer() -> Result<Signer, ImageError> {
    let given = std::env::var_os("BERTH_RELEASE_KEYS").map(PathBuf::from);
    let folder = match given {
        Some(folder) => folder,
        None => cache::entry("release-keys", "own", 1, |folder| -> Result<(), ImageError> {
            let mut minisign = spawn::command("minisign");
            minisign.args(["-G", "-W", "-p", "release.pub", "-s", "release.key"]).current_dir(folder);
            spawn::output(&mut minisign).map(drop).map_err(ImageError::from)
        })?,
    };
    Ok(Signer { public: folder.join("release.pub"), secret: folder.join("release.key") })
}

/// Signs the list of sums, for one channel.
fn sign(folder: &Path, version: &str, channel: &str) -> Result<(), ImageError> {
    let mut minisign = spawn::command("minisign");
    minisign.args(["-S", "-W", "-t", &release::comment(version, channel), "-s"]).arg(signer()?.secret);
    spawn::output(minisign.arg("-m").arg(folder.join("SHA256SUMS")))?;
    Ok(())
}

fn copy(path: &Path, folder: &Path) -> Result<(), ImageError> {
    let to = folder.join(path.file_name().unwrap_or_default());
    at(&to, fs::hard_link(path, &to).or_else(|_| fs::copy(path, &to).map(drop)))?;
    Ok(())
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
        if name.starts_with("SHA256SUMS") {
            continue;
        }
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
