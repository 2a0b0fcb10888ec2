//! The appliance's image, built by the scripts of `image/debian`.
//!
//! ```text
//! tools (a Debian with what makes images) ─> appliance (Debian's share of /usr, kernel, ramdisk) ─┐
//!                                                                            payload (the package) ┴> image
//! ```
//!
//! Each is kept under a hash of all it is made from, so that a change of Berth alone takes seconds. [`publish`] makes of
//! it what is downloaded.

pub mod publish;

use std::path::{Path, PathBuf};

use crate::cache::{self, CacheError, Key};
use crate::images::Images;
use crate::payload::Payload;
use crate::spawn::{self, SpawnError};
use crate::tree;

/// The image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Files.
    #[error("keeping the image")]
    Files(#[from] CacheError),
    /// A script.
    #[error("building the image")]
    Build(#[from] SpawnError),
    /// A file is missing in what was built.
    #[error("the scripts made no {0}")]
    Missing(&'static str),
}

/// A built version of the appliance.
#[derive(Clone, Debug)]
pub struct Image {
    /// Where its files are.
    pub folder: PathBuf,
    /// Debian's packages in it: name, version and architecture, with tabs between.
    pub packages: PathBuf,
    /// As in the names of its files.
    pub version: String,
}

impl Image {
    /// The disk as it is flashed.
    pub fn disk(&self) -> PathBuf {
        self.folder.join(format!("berth_{}.raw", self.version))
    }

    /// What an update to this version is made of: /usr, its hashes, the kernel.
    pub fn parts(&self) -> Result<[PathBuf; 3], ImageError> {
        let files = cache::children(&self.folder)?;
        let ending = |ending: &'static str| {
            let found = files.iter().find(|path| path.to_string_lossy().ends_with(ending));
            found.cloned().ok_or(ImageError::Missing(ending))
        };
        Ok([ending(".usr.raw")?, ending(".verity.raw")?, ending(".efi")?])
    }
}

/// What a version is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    /// Berth.
    pub payload: &'a Payload,
    /// Where the starter service comes from.
    pub images: &'a Images,
    /// As in the names of its files.
    pub version: &'a str,
    /// A folder that is laid over the tree before it is sealed, with a `cmdline` beside it that the kernel is told as
    /// well: how tests spoil a version.
    pub changes: Option<&'a Path>,
}

/// What comes up at the first start, without a network.
const STARTER: &str = "nginx:welcome";

/// The image of a version.
pub fn build(recipe: Recipe<'_>) -> Result<Image, ImageError> {
    let (tools, tools_key) = tools()?;
    let (appliance, appliance_key) = appliance(&tools, &tools_key)?;
    let mut key = key("image 2", &["assemble.sh", "inside.sh", "settings.sh"])?;
    for part in [
        "appliance/etc",
        "cmdline",
        "initrd",
        "repart.d",
        "repart.build",
        "repart.install",
        "starter",
        "system",
        "sysupdate.d",
    ] {
        key.add_path(&tree::top().join("image").join(part))?;
    }
    for part in [&tools_key, &appliance_key, &recipe.payload.key, &recipe.images.key, recipe.version] {
        key.add(part.as_bytes());
    }
    if let Some(changes) = recipe.changes {
        key.add_path(changes)?;
    }
    key.add_path(&publish::signer()?.public)?;
    let folder = cache::entry("image", &key.finish(), 6, |folder| assemble(recipe, &tools, &appliance, folder))?;
    Ok(Image { folder, packages: appliance.join("packages"), version: recipe.version.to_owned() })
}

/// What an image that is built once more begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// What was made of Debian's packages before.
    Appliance,
    /// Debian's packages themselves.
    Packages,
}

/// The same image once more, into an empty folder, whatever there is already.
pub fn build_anew(recipe: Recipe<'_>, from: Basis, folder: &Path) -> Result<Image, ImageError> {
    let (tools, tools_key) = tools()?;
    let appliance = match from {
        Basis::Appliance => appliance(&tools, &tools_key)?.0,
        Basis::Packages => {
            let own = folder.join("appliance");
            cache::at(&own, std::fs::create_dir_all(&own))?;
            script("appliance.sh", &[&tools, &own])?;
            own
        }
    };
    let folder = folder.join("image");
    cache::at(&folder, std::fs::create_dir_all(&folder))?;
    assemble(recipe, &tools, &appliance, &folder)?;
    Ok(Image { folder, packages: appliance.join("packages"), version: recipe.version.to_owned() })
}

fn assemble(recipe: Recipe<'_>, tools: &Path, appliance: &Path, folder: &Path) -> Result<(), ImageError> {
    let Recipe { payload, images, version, changes } = recipe;
    let (starter, none) = (images.layout(STARTER), PathBuf::from("/nonexistent"));
    let (signer, changes) = (publish::signer()?.public, changes.unwrap_or(&none));
    script("assemble.sh", &[tools, appliance, &payload.path, &starter, &signer, Path::new(version), changes, folder])
}

/// A Debian that makes images.
fn tools() -> Result<(PathBuf, String), ImageError> {
    let key = key("tools 1", &["tools.sh", "tools.packages", "mirror.sh"])?.finish();
    let folder = cache::entry("image-tools", &key, 2, |folder| {
        eprintln!("fetching the tools that make an image (some 250 MB; once)");
        script("tools.sh", &[folder])
    })?;
    Ok((folder.join("root"), key))
}

/// What changes only with Debian.
fn appliance(tools: &Path, tools_key: &str) -> Result<(PathBuf, String), ImageError> {
    let mut key = key("appliance 1", &["appliance.sh", "slim.sh", "ramdisk.sh", "mirror.sh"])?;
    key.add_path(&tree::top().join("image/appliance/packages"))?;
    key.add(tools_key.as_bytes());
    let key = key.finish();
    let folder = cache::entry("appliance", &key, 2, |folder| {
        eprintln!("fetching the appliance's packages and making its ramdisk (some 500 MB; once)");
        script("appliance.sh", &[tools, folder])
    })?;
    Ok((folder, key))
}

fn key(format: &str, scripts: &[&str]) -> Result<Key, ImageError> {
    let mut key = Key::new(format);
    for script in scripts {
        key.add_path(&tree::top().join("image/debian").join(script))?;
    }
    Ok(key)
}

fn script(name: &str, arguments: &[&Path]) -> Result<(), ImageError> {
    let path = tree::top().join("image/debian").join(name);
    Ok(spawn::run(spawn::command("sh").arg(path).args(arguments))?)
}
